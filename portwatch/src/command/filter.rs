//! From filter flags to the filter: names become numbers, expressions are compiled.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use wildmatch::WildMatch;

use crate::cli::{EventFilterArgs, FilterArgs};
use crate::event::{Event, Family, Proto};
use crate::filter::{Expr, Filter, Span, Spans, Subject};
use crate::row::{Column, Row};
use crate::user::Users;

/// A filter of events or of rows.
///
/// # Errors
/// When a name cannot be resolved or the expression is none.
pub fn new<S: Subject>(args: FilterArgs) -> Result<Filter> {
    among::<S>(args, &S::columns())
}

/// The same filter of rows and of events, with the names that they share.
///
/// # Errors
/// As [`new`].
pub fn of_both(args: &FilterArgs) -> Result<(Filter, Filter)> {
    let mut shared = Event::columns();
    shared.retain(|column| Row::columns().contains(column));
    let rows = among::<Row>(args.clone(), &shared)?;
    Ok((rows, among::<Event>(args.clone(), &shared)?))
}

fn among<S: Subject>(args: FilterArgs, columns: &[Column]) -> Result<Filter> {
    let mut users = Users::system();
    let mut protos = Vec::new();
    if args.tcp {
        protos.extend([Proto::Tcp, Proto::Mptcp]);
    }
    if args.udp {
        protos.push(Proto::Udp);
    }
    let families = [(args.ipv4, Family::Ipv4), (args.ipv6, Family::Ipv6)];
    Ok(Filter {
        pids: Spans(args.pid),
        ports: Spans(args.port),
        uids: Spans(
            (args.uid.iter())
                .map(|x| uid(&mut users, x))
                .collect::<Result<_>>()?,
        ),
        protos,
        families: families
            .into_iter()
            .filter_map(|(on, x)| on.then_some(x))
            .collect(),
        comms: args.comm.iter().map(|x| WildMatch::new(x)).collect(),
        netns: args.netns.iter().map(|x| netns(x)).collect::<Result<_>>()?,
        containers: args.container,
        nets: args.net,
        expr: args
            .filter
            .map(|x| Expr::among::<S>(&x, columns).context("--filter"))
            .transpose()?,
        ..Filter::default()
    })
}

/// A filter of events.
///
/// # Errors
/// As [`new`].
pub fn of_events(args: EventFilterArgs) -> Result<Filter> {
    Ok(Filter {
        kinds: args.event,
        failed: args.failed,
        ..new::<Event>(args.any)?
    })
}

fn uid(users: &mut Users, text: &str) -> Result<Span<u32>> {
    if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(char::is_alphabetic) {
        return text.parse().map_err(|error| anyhow!("--uid: {error}"));
    }
    let uid = users.uid(text).with_context(|| {
        format!("--uid: no user '{text}' on this machine; write a name, a number or a range")
    })?;
    Ok(uid.into())
}

/// Inode number of a network namespace from the number itself, a name of ip-netns(8) or a path.
fn netns(text: &str) -> Result<u32> {
    if let Ok(inode) = text.parse() {
        return Ok(inode);
    }
    let path = if text.contains('/') {
        PathBuf::from(text)
    } else {
        Path::new("/run/netns").join(text)
    };
    let hint = "write an inode number, a name as in `ip netns`, or a path such as /proc/1/ns/net";
    match inode_of_namespace(&path) {
        Ok(Some(inode)) => Ok(inode),
        Ok(None) => bail!(
            "--netns {text}: {} is no network namespace; {hint}",
            path.display()
        ),
        Err(error) => bail!("--netns {text}: {}: {error}; {hint}", path.display()),
    }
}

/// `None` for a file that is no network namespace.
fn inode_of_namespace(path: &Path) -> rustix::io::Result<Option<u32>> {
    use rustix::fs::{Mode, OFlags, fstat, fstatfs, open};
    // Opened without effect, as it may be a device or a pipe: only those of nsfs are opened for real.
    let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if i128::from(fstatfs(&file)?.f_type) != i128::from(libc::NSFS_MAGIC) {
        return Ok(None);
    }
    let inode = u32::try_from(fstat(&file)?.st_ino).ok();
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: this request takes no argument, and the descriptor is open.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    Ok(inode.filter(|_| kind == libc::CLONE_NEWNET))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_user_is_a_name_a_number_or_a_range() {
        let mut users = Users::system();
        assert_eq!(uid(&mut users, "root").unwrap(), 0.into());
        assert_eq!(uid(&mut users, "4000000000").unwrap(), 4_000_000_000.into());
        let (first, last) = (1000, 1999);
        assert_eq!(uid(&mut users, "1000-1999").unwrap(), Span { first, last });
        let error = uid(&mut users, "2-1").unwrap_err().to_string();
        assert_eq!(error, "--uid: the range is empty; write 1-2");
        let error = uid(&mut users, "no-such-user-here")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no user 'no-such-user-here'"), "{error}");
    }

    #[test]
    fn rows_and_events_are_asked_by_names_that_both_have() {
        let of_both = |filter: &str| {
            of_both(&FilterArgs {
                filter: Some(filter.to_owned()),
                ..FilterArgs::default()
            })
        };
        assert!(of_both("lport == 80 && rtt_us > 1").is_ok());
        for name in ["state", "event", "nonsense"] {
            let error = format!("{:#}", of_both(&format!("{name} == 'x'")).unwrap_err());
            let (first, names) = error.split_once("the names are: ").unwrap();
            assert!(first.contains(&format!("no name '{name}'")), "{error}");
            assert!(names.starts_with("proto, family, laddr,"), "{error}");
        }
    }

    #[test]
    fn a_namespace_is_a_number_or_a_path() {
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(u64::from(netns("/proc/self/ns/net").unwrap()), own);
        assert_eq!(netns("4026531840").unwrap(), 4026531840);
        let error = format!("{:#}", netns("no-such-namespace").unwrap_err());
        assert!(error.contains("/run/netns/no-such-namespace"), "{error}");
        for path in [
            "/etc/passwd",
            "/",
            "/dev/null",
            "/proc/self/ns/mnt",
            "/proc/self/ns/",
        ] {
            let error = format!("{:#}", netns(path).unwrap_err());
            assert!(error.contains("is no network namespace; write"), "{error}");
        }
    }
}
