use turingpi_engine::{Approval, FailureClass, Outcome, Plan, Risk, Subject};

use crate::support::{Bench, Plans, Scripted, describe, lane, plan, stage, step};

fn risky(id: &str, risk: Risk) -> Scripted {
    step(describe(id).risk(risk))
}

fn three_risks() -> Plan {
    let lanes = vec![
        lane("node1", vec![risky("node1/look", Risk::Safe), risky("node1/reboot", Risk::Disruptive)]),
        lane("node2", vec![risky("node2/flash", Risk::Destructive)]),
    ];
    Plan { stages: vec![stage("all", lanes)] }
}

#[test]
fn an_approval_covers_its_risk_its_subjects_and_its_digest_and_nothing_else() {
    let preview = three_risks().preview();
    let digest = preview.digest();
    let check = |approval: Approval| approval.check(&preview, &digest).map_err(|f| f.message().to_owned());
    let node1 = || Subject::node("node1");
    let node2 = || Subject::node("node2");
    assert_eq!(
        check(Approval::safe_only()).unwrap_err(),
        "steps are not approved: `node1/reboot` (disruptive on node1), `node2/flash` (destructive on node2)"
    );
    let flash = "a step is not approved: `node2/flash` (destructive on node2)";
    assert_eq!(check(Approval::disruptive()).unwrap_err(), flash);
    assert_eq!(check(Approval::disruptive().subject(node1())).unwrap_err(), flash);
    assert_eq!(
        check(Approval::safe_only().subject(node2())).unwrap_err(),
        "a step is not approved: `node1/reboot` (disruptive on node1)"
    );
    assert_eq!(check(Approval::disruptive().subject(node2())), Ok(()));
    assert_eq!(check(Approval::safe_only().subject(node1()).subject(node2())), Ok(()));
    assert_eq!(check(Approval::safe_only().digest(digest.as_str())), Ok(()));
    assert_eq!(check(Approval::everything()), Ok(()));
    assert!(
        check(Approval::disruptive().subject(Subject::board("node2"))).is_err(),
        "another kind, another thing"
    );
}

#[test]
fn a_refusal_says_what_to_pass() {
    let preview = three_risks().preview();
    let failure =
        Approval::safe_only().digest("of an older plan").check(&preview, &preview.digest()).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unapproved);
    let hint = failure.hint_text().unwrap();
    for part in ["not the one that was approved", "`--yes`", "(node2)", &preview.digest()] {
        assert!(hint.contains(part), "{hint}");
    }
}

#[test]
fn a_digest_changes_with_every_part_of_a_plan() {
    let digest = |plan: Plan| plan.preview().digest();
    let base = || describe("a");
    let variants = [
        base(),
        base().risk(Risk::Destructive),
        base().lock("x"),
        base().needs("x"),
        base().reaches("x"),
        base().change(turingpi_engine::Change::set("hostname", "a")),
        base().change(turingpi_engine::Change::replace("hostname", "b", "a")),
        describe("b"),
    ];
    let digests: std::collections::BTreeSet<_> =
        variants.iter().map(|d| digest(plan(vec![step(d.clone())]))).collect();
    assert_eq!(digests.len(), variants.len());
    assert_eq!(digest(plan(vec![step(base())])), digest(plan(vec![step(base())])));
    assert!(digests.iter().all(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit())));
}

#[tokio::test]
async fn nothing_is_done_before_the_whole_plan_is_approved() {
    let bench = Bench::new();
    let failure =
        bench.executor.converge(&Plans::new([three_risks()]), &Approval::disruptive()).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unapproved);
    assert!(bench.sink.outcomes().is_empty());
    assert_eq!(bench.sink.summary().outcome, Outcome::Failed);
}

/// Runs `first` and then `later`, with an approval for the digest of the first plan only.
async fn later_round(first: Vec<Scripted>, later: Vec<Scripted>) -> (Result<usize, FailureClass>, Bench) {
    let bench = Bench::new();
    let (first, later) = (plan(first), plan(later));
    let approval = Approval::safe_only().digest(first.preview().digest());
    let result = bench.executor.converge(&Plans::new([first, later]), &approval).await;
    (result.map(|s| s.steps_done).map_err(|f| f.class()), bench)
}

#[tokio::test]
async fn a_later_round_may_do_what_was_announced_and_what_is_safe() {
    let first = || vec![risky("a", Risk::Safe), risky("b", Risk::Disruptive), risky("c", Risk::Destructive)];
    let (result, _) = later_round(first(), vec![risky("b", Risk::Disruptive)]).await;
    assert_eq!(result, Ok(4));
    let (result, _) = later_round(first(), vec![risky("b", Risk::Safe), risky("new", Risk::Safe)]).await;
    assert_eq!(result, Ok(5));
}

#[tokio::test]
async fn a_later_round_that_goes_beyond_what_was_approved_stops_before_it_begins() {
    for beyond in
        [risky("new", Risk::Disruptive), risky("new", Risk::Destructive), risky("a", Risk::Disruptive)]
    {
        let (result, bench) =
            later_round(vec![risky("a", Risk::Safe)], vec![risky("z", Risk::Safe), beyond]).await;
        assert_eq!(result, Err(FailureClass::Unapproved));
        assert_eq!(bench.sink.outcomes(), [("a".to_owned(), Outcome::Done)]);
        assert!(bench.sink.summary().failures[0].failure.message.contains("not part of the plan"));
    }
}

#[tokio::test]
async fn a_step_that_was_announced_for_one_subject_is_not_approved_for_another() {
    let bench = Bench::new();
    let on = |node: &str| Plan {
        stages: vec![stage("s", vec![lane(node, vec![risky("x/reboot", Risk::Disruptive)])])],
    };
    let approval = Approval::safe_only().digest(on("node1").preview().digest());
    let failure =
        bench.executor.converge(&Plans::new([on("node1"), on("node2")]), &approval).await.unwrap_err();
    assert_eq!(failure.class(), FailureClass::Unapproved);
}

#[tokio::test]
async fn a_later_round_beyond_the_forecast_goes_on_where_the_approval_itself_covers_it() {
    let bench = Bench::new();
    let plans = Plans::new([plan(vec![risky("a", Risk::Safe)]), plan(vec![risky("b", Risk::Destructive)])]);
    let approval = Approval::safe_only().subject(Subject::node("node1"));
    assert_eq!(bench.executor.converge(&plans, &approval).await.unwrap().steps_done, 2);
}
