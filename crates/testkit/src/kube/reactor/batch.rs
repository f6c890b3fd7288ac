//! Jobs run to completion. (CronJobs are kept, but no clock starts them.)

use std::time::Duration;

use serde_json::Value;

use super::{Pass, controller, pods, replicas::count, template};
use crate::kube::{
    registry::Gvr,
    store::{DeleteOptions, now},
    value::{condition, default, deleting, int, set, text, uid},
};

const MANAGER: &str = "kube-controller-manager";
const COMPONENT: &str = "job-controller";

pub(super) fn reconcile(pass: &mut Pass<'_>) {
    let all = pass.all("", "pods");
    for job in pass.all("batch", "jobs") {
        if deleting(&job) {
            continue;
        }
        if condition(&job, "Complete") == "True" || condition(&job, "Failed") == "True" {
            let ttl = int(&job, &["spec", "ttlSecondsAfterFinished"]).and_then(|s| u64::try_from(s).ok());
            if ttl.is_some_and(|s| pass.passed(&job, "ttl", Duration::from_secs(s))) {
                pass.delete(&Gvr::JOBS, &job, DeleteOptions::default());
            }
            continue;
        }
        if job["spec"]["suspend"] == true {
            pass.edit(MANAGER, &Gvr::JOBS, &job, |j| {
                super::set_condition(j, "Suspended", "True", "JobSuspended", "Job suspended")
            });
            continue;
        }
        let mine: Vec<_> = all.iter().filter(|p| controller(p) == Some(uid(&job))).collect();
        let phase = |p: &Value| text(p, &["status", "phase"]).to_owned();
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let succeeded = mine.iter().filter(|p| phase(p) == "Succeeded").count();
        let failed = mine.iter().filter(|p| phase(p) == "Failed").count();
        let active: Vec<_> = mine.iter().filter(|p| pods::is_active(p)).collect();
        let parallel = int(&job, &["spec", "parallelism"]).unwrap_or(1);
        let completions = int(&job, &["spec", "completions"]).unwrap_or(1);
        let limit = int(&job, &["spec", "backoffLimit"]).unwrap_or(6);
        let deadline = int(&job, &["spec", "activeDeadlineSeconds"]).and_then(|s| u64::try_from(s).ok());
        let late = deadline.is_some_and(|s| pass.passed(&job, "deadline", Duration::from_secs(s)));
        let done = number(succeeded) >= completions;
        // A pod that restarts in place fails the job by its restarts; one is enough to see that it never ends well.
        let looping = active.iter().any(|p| {
            crate::kube::value::items(p, &["status", "containerStatuses"])
                .iter()
                .any(|s| text(s, &["state", "waiting", "reason"]) == "CrashLoopBackOff")
        });
        let broken = number(failed) > limit || late || looping;
        if !done && !broken {
            let wanted = parallel.min(completions - number(succeeded));
            for _ in number(active.len())..wanted {
                let pod = template::pod(&job, &job["spec"]["template"], &[]);
                if !template::create(pass, COMPONENT, &job, pod) {
                    break;
                }
            }
        } else {
            for pod in &active {
                pass.delete(&Gvr::PODS, pod, DeleteOptions::default());
            }
        }
        let running = if done || broken { 0 } else { active.len() };
        pass.edit(MANAGER, &Gvr::JOBS, &job, |j| {
            default(j, &["status", "startTime"], now());
            count(j, "active", running);
            count(j, "succeeded", succeeded);
            count(j, "failed", failed + usize::from(looping));
            set(j, &["status", "ready"], active.iter().filter(|p| pods::is_ready(p)).count());
            set(j, &["status", "terminating"], 0);
            if done {
                super::set_condition(
                    j,
                    "SuccessCriteriaMet",
                    "True",
                    "CompletionsReached",
                    "Reached expected number of succeeded pods",
                );
                super::set_condition(
                    j,
                    "Complete",
                    "True",
                    "CompletionsReached",
                    "Reached expected number of succeeded pods",
                );
                default(j, &["status", "completionTime"], now());
            } else if broken {
                let (reason, message) = if late {
                    ("DeadlineExceeded", "Job was active longer than specified deadline")
                } else {
                    ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
                };
                super::set_condition(j, "FailureTarget", "True", reason, message);
                super::set_condition(j, "Failed", "True", reason, message);
            }
        });
    }
}
