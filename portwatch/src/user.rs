//! Names of users, from /etc/passwd first: it needs no library, no daemon and no network, which a
//! static program cannot use and a tracer must not wait for on every event.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

/// One line of passwd(5), as far as needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

/// The accounts of this machine. A user added later is found too.
#[derive(Debug)]
pub struct Users {
    passwd: PathBuf,
    /// Of the file that `accounts` was read from.
    modified: Option<SystemTime>,
    accounts: HashMap<u32, Account>,
    /// Asked of the system's directory (LDAP and the like); `None`: not there either.
    elsewhere: HashMap<u32, Option<Account>>,
}

impl Users {
    /// Those of /etc/passwd, and what the system's directory adds.
    pub fn system() -> Self {
        Self::from_file("/etc/passwd".into())
    }

    fn from_file(passwd: PathBuf) -> Self {
        let mut users = Self {
            passwd,
            modified: None,
            accounts: HashMap::new(),
            elsewhere: HashMap::new(),
        };
        users.refresh();
        users
    }

    /// Name of a user; `None` when there is none with this number.
    pub fn name(&mut self, uid: u32) -> Option<&str> {
        self.account(uid).map(|account| account.name.as_str())
    }

    pub fn account(&mut self, uid: u32) -> Option<&Account> {
        if !self.accounts.contains_key(&uid) {
            self.refresh();
        }
        if self.accounts.contains_key(&uid) {
            return self.accounts.get(&uid);
        }
        self.elsewhere
            .entry(uid)
            .or_insert_with(|| directory::by_uid(uid))
            .as_ref()
    }

    /// Number of the user with this name.
    pub fn uid(&mut self, name: &str) -> Option<u32> {
        self.accounts
            .values()
            .find(|account| account.name == name)
            .map(|account| account.uid)
            .or_else(|| directory::by_name(name))
    }

    /// Reads the file again if it changed since.
    fn refresh(&mut self) {
        let modified = std::fs::metadata(&self.passwd)
            .and_then(|x| x.modified())
            .ok();
        if modified == self.modified {
            return;
        }
        // A file that cannot be read leaves numbers without names, which is no reason to stop.
        let text = std::fs::read(&self.passwd).unwrap_or_default();
        self.modified = modified;
        self.elsewhere.clear();
        self.accounts.clear();
        for account in parse_passwd(&String::from_utf8_lossy(&text)) {
            // of several names for one number, the first is the one that ls and ps show
            self.accounts.entry(account.uid).or_insert(account);
        }
    }
}

/// Ids of all groups a user is in, the login group first.
pub fn groups(account: &Account) -> Vec<u32> {
    directory::groups(account).unwrap_or_else(|| {
        let text = std::fs::read("/etc/group").unwrap_or_default();
        groups_in(&String::from_utf8_lossy(&text), account)
    })
}

/// Lines of passwd(5). Lines that are not of that form (comments, NIS markers) are left out.
fn parse_passwd(text: &str) -> impl Iterator<Item = Account> + '_ {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else {
            return None;
        };
        Some(Account {
            name: (!name.is_empty()).then(|| name.to_owned())?,
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
            shell: shell.to_owned(),
        })
    })
}

/// Groups of an account by the lines of group(5).
fn groups_in(text: &str, account: &Account) -> Vec<u32> {
    let mut groups = vec![account.gid];
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [_, _, gid, members] = fields[..]
            && members
                .split(',')
                .any(|member| member.trim() == account.name)
            && let Ok(gid) = gid.parse()
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    }
    groups
}

/// The system's user directory through the C library, which loads the modules that
/// nsswitch.conf(5) names.
#[cfg(not(target_feature = "crt-static"))]
mod directory {
    use super::Account;
    use uzers::os::unix::UserExt as _;

    pub fn by_uid(uid: u32) -> Option<Account> {
        let user = uzers::get_user_by_uid(uid)?;
        Some(Account {
            name: user.name().to_string_lossy().into_owned(),
            uid,
            gid: user.primary_group_id(),
            home: user.home_dir().to_string_lossy().into_owned(),
            shell: user.shell().to_string_lossy().into_owned(),
        })
    }

    pub fn by_name(name: &str) -> Option<u32> {
        uzers::get_user_by_name(name).map(|user| user.uid())
    }

    pub fn groups(account: &Account) -> Option<Vec<u32>> {
        let groups = uzers::get_user_groups(&account.name, account.gid)?;
        Some(groups.iter().map(uzers::Group::gid).collect())
    }
}

/// A static program cannot load modules: the files are all it has.
#[cfg(target_feature = "crt-static")]
mod directory {
    use super::Account;

    pub fn by_uid(_uid: u32) -> Option<Account> {
        None
    }

    pub fn by_name(_name: &str) -> Option<u32> {
        None
    }

    pub fn groups(_account: &Account) -> Option<Vec<u32>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, uid: u32) -> Account {
        Account {
            name: name.into(),
            uid,
            gid: uid,
            home: format!("/home/{name}"),
            shell: "/bin/sh".into(),
        }
    }

    #[test]
    fn only_proper_lines_of_passwd_count() {
        let text = "root:x:0:0:root:/root:/bin/bash\n\
                    # a comment\n\
                    +nis::::::\n\
                    :x:7:7::/:/bin/sh\n\
                    broken:x:notanumber:0::/:/bin/sh\n\
                    short:x:5\n\
                    alice:x:1000:1000:Alice:/home/alice:/bin/sh\n";
        let names: Vec<_> = parse_passwd(text).map(|account| account.name).collect();
        assert_eq!(names, ["root", "alice"]);
        assert_eq!(parse_passwd(text).last(), Some(account("alice", 1000)));
    }

    #[test]
    fn a_user_added_while_running_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("passwd");
        // numbers that no directory will know
        let line = |name: &str, uid: u32| format!("{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n");
        std::fs::write(&passwd, line("alice", 4_000_000_001)).unwrap();
        let mut users = Users::from_file(passwd.clone());
        assert_eq!(users.name(4_000_000_001), Some("alice"));
        assert_eq!(users.name(4_000_000_002), None);

        std::fs::write(&passwd, line("bob", 4_000_000_002)).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(2);
        let file = std::fs::File::options().write(true).open(&passwd).unwrap();
        file.set_modified(later).unwrap();
        assert_eq!(users.name(4_000_000_002), Some("bob"));
        assert_eq!(users.uid("bob"), Some(4_000_000_002));
    }

    #[test]
    fn groups_are_the_login_group_and_every_membership() {
        let text =
            "root:x:0:\nwheel:x:10:alice,bob\nnet:x:20:bob, alice\nalice:x:1000:alice\nbad\n";
        assert_eq!(groups_in(text, &account("alice", 1000)), [1000, 10, 20]);
        assert_eq!(groups_in(text, &account("carol", 1001)), [1001]);
    }

    #[test]
    fn this_machine_knows_root() {
        let mut users = Users::system();
        assert_eq!(users.name(0), Some("root"));
        assert_eq!(users.uid("root"), Some(0));
    }
}
