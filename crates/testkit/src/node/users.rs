//! Accounts: `/etc/passwd`, `/etc/shadow` and `/etc/group` of the node are the truth, as on a host.

use sha2::{Digest as _, Sha256};

use super::vfs::Vfs;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

impl Account {
    pub(crate) fn root() -> Self {
        Self { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: "/bin/bash".into() }
    }
}

/// How a login with a password ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    Refused,
    Accepted,
    /// Right, but the password must be changed on a terminal before anything runs.
    Expired,
}

/// All accounts.
pub(crate) fn all(vfs: &Vfs) -> Vec<Account> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        Some(Account {
            name: (*fields.first()?).to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: (*fields.get(5)?).to_owned(),
            shell: (*fields.get(6)?).to_owned(),
        })
    };
    vfs.text("/etc/passwd").lines().filter_map(parse).collect()
}

/// The account of this name, or number.
pub(crate) fn find(vfs: &Vfs, name: &str) -> Option<Account> {
    all(vfs).into_iter().find(|account| account.name == name || account.uid.to_string() == name)
}

/// The name of a user id.
pub(crate) fn name_of(vfs: &Vfs, uid: u32) -> Option<String> {
    all(vfs).into_iter().find(|account| account.uid == uid).map(|account| account.name)
}

/// A group: name, id and members.
pub(crate) fn groups(vfs: &Vfs) -> Vec<(String, u32, Vec<String>)> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let members = fields.get(3).copied().unwrap_or_default();
        let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
        Some(((*fields.first()?).to_owned(), fields.get(2)?.parse().ok()?, members))
    };
    vfs.text("/etc/group").lines().filter_map(parse).collect()
}

/// The groups an account is in: its own first.
pub(crate) fn groups_of(vfs: &Vfs, account: &Account) -> Vec<(String, u32)> {
    let mut mine: Vec<(String, u32)> = Vec::new();
    for (name, gid, members) in groups(vfs) {
        if gid == account.gid {
            mine.insert(0, (name, gid));
        } else if members.contains(&account.name) {
            mine.push((name, gid));
        }
    }
    mine
}

/// A password as `/etc/shadow` keeps it: salted, not the real crypt(3).
pub(crate) fn hash(name: &str, password: &str) -> String {
    format!("$sim${}", hex::encode(Sha256::digest(format!("{name}\0{password}"))))
}

fn shadow(vfs: &Vfs, name: &str) -> Option<Vec<String>> {
    let line = vfs.text("/etc/shadow");
    let line = line.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').map(str::to_owned).collect())
}

/// Checks a password.
pub(crate) fn check(vfs: &Vfs, name: &str, password: &str) -> Login {
    let Some(fields) = shadow(vfs, name) else { return Login::Refused };
    match fields.get(1) {
        Some(stored) if *stored == hash(name, password) => {
            if fields.get(2).is_some_and(|changed| changed == "0") { Login::Expired } else { Login::Accepted }
        }
        _ => Login::Refused,
    }
}

/// Whether an account's password must be changed before anything runs.
pub(crate) fn expired(vfs: &Vfs, name: &str) -> bool {
    shadow(vfs, name).is_some_and(|fields| fields.get(2).is_some_and(|changed| changed == "0"))
}

/// Sets what stands in the password field; `changed` is the day of the last change, 0 to expire it.
pub(crate) fn set_shadow(vfs: &mut Vfs, name: &str, field: &str, changed: u32) {
    let mut found = false;
    let mut lines: Vec<String> = Vec::new();
    for line in vfs.text("/etc/shadow").lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        let changed = changed.to_string();
        if fields.first() == Some(&name) {
            found = true;
            if let Some(slot) = fields.get_mut(1) {
                *slot = field;
            }
            if let Some(slot) = fields.get_mut(2) {
                *slot = &changed;
            }
            lines.push(fields.join(":"));
        } else {
            lines.push(line.to_owned());
        }
    }
    if !found {
        lines.push(format!("{name}:{field}:{changed}:0:99999:7:::"));
    }
    vfs.put_mode("/etc/shadow", lines.join("\n") + "\n", 0o640);
}

/// Sets a password that does not have to be changed.
pub(crate) fn set_password(vfs: &mut Vfs, name: &str, password: &str) {
    let field = hash(name, password);
    set_shadow(vfs, name, &field, 20_400);
}

/// Adds an account with a home folder. Nothing happens when it is there.
pub(crate) fn add(
    vfs: &mut Vfs,
    name: &str,
    uid: Option<u32>,
    home: Option<&str>,
    shell: &str,
    make_home: bool,
) -> Account {
    if let Some(account) = find(vfs, name) {
        return account;
    }
    let next = all(vfs)
        .iter()
        .map(|a| a.uid)
        .filter(|uid| (1000..60_000).contains(uid))
        .max()
        .map_or(1000, |uid| uid + 1);
    let uid = uid.unwrap_or(next);
    let home = home.map_or_else(|| format!("/home/{name}"), str::to_owned);
    let passwd = vfs.text("/etc/passwd");
    vfs.put("/etc/passwd", format!("{passwd}{name}:x:{uid}:{uid}:{name}:{home}:{shell}\n"));
    let group = vfs.text("/etc/group");
    vfs.put("/etc/group", format!("{group}{name}:x:{uid}:\n"));
    set_shadow(vfs, name, "!", 20_400);
    if make_home {
        vfs.mkdirs(&home, 0o755);
        let _ = vfs.change(&home, |inode| {
            inode.uid = uid;
            inode.gid = uid;
            inode.mode = 0o755;
        });
    }
    Account { name: name.to_owned(), uid, gid: uid, home, shell: shell.to_owned() }
}

/// Makes an account a member of a group, which is made if need be.
pub(crate) fn join(vfs: &mut Vfs, group: &str, member: &str) {
    let text = vfs.text("/etc/group");
    let mut found = false;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.split(':').next() == Some(group) {
            found = true;
            let members = line.rsplit(':').next().unwrap_or_default();
            if members.split(',').any(|m| m == member) {
                lines.push(line.to_owned());
            } else {
                lines.push(format!("{line}{}{member}", if members.is_empty() { "" } else { "," }));
            }
        } else {
            lines.push(line.to_owned());
        }
    }
    if !found {
        let gid = groups(vfs).iter().map(|g| g.1).filter(|gid| *gid < 1000).max().unwrap_or(100) + 1;
        lines.push(format!("{group}:x:{gid}:{member}"));
    }
    vfs.put("/etc/group", lines.join("\n") + "\n");
}

/// What sudo allows an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sudo {
    No,
    Password,
    Free,
}

/// Reads `/etc/sudoers` and `/etc/sudoers.d`: only `ALL` rules, the last that matches wins.
pub(crate) fn sudo_rule(vfs: &Vfs, account: &Account) -> Sudo {
    if account.uid == 0 {
        return Sudo::Free;
    }
    let mut rule = Sudo::No;
    let mut texts = vec![vfs.text("/etc/sudoers")];
    for name in vfs.names_ending("/etc/sudoers.d", "") {
        if !name.contains('.') && !name.ends_with('~') {
            texts.push(vfs.text(&format!("/etc/sudoers.d/{name}")));
        }
    }
    let mine = groups_of(vfs, account);
    for line in texts.iter().flat_map(|text| text.lines()) {
        let line = line.trim();
        let Some((who, what)) = line.split_once(char::is_whitespace) else { continue };
        let matches = match who.strip_prefix('%') {
            Some(group) => mine.iter().any(|(name, _)| name == group),
            None => who == account.name || who == "ALL",
        };
        if matches && what.contains("ALL") {
            rule = if what.contains("NOPASSWD:") { Sudo::Free } else { Sudo::Password };
        }
    }
    rule
}
