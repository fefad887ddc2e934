//! What a cgroup path tells about its processes: the container and the systemd unit they are in.
//!
//! Container engines put the container's id into the path, each in its own way, see the table of
//! the tests. Pure functions: no file is read.

/// Digits of a container's id that are kept: as many as `docker ps` shows.
const SHORT_ID: usize = 12;

/// Id of the innermost container that a cgroup path names: its first 12 hexadecimal digits, or
/// its name where the engine (LXC) knows no id.
pub fn container(cgroup: &str) -> Option<String> {
    let parts: Vec<&str> = cgroup.split('/').collect();
    (0..parts.len())
        .rev()
        .find_map(|i| {
            id_in(parts[i]).or_else(|| lxc_name(i.checked_sub(1).map(|i| parts[i]), parts[i]))
        })
        .map(str::to_owned)
}

/// The innermost systemd unit that a cgroup path names; slices are only folders and do not count.
pub fn unit(cgroup: &str) -> Option<String> {
    const SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
    cgroup
        .split('/')
        .rev()
        // systemd puts `_` before a name that the kernel could take for one of its own files
        .map(|part| part.strip_prefix('_').unwrap_or(part))
        .find(|part| {
            SUFFIXES.iter().any(|suffix| {
                part.strip_suffix(suffix)
                    .is_some_and(|stem| !stem.is_empty())
            })
        })
        .map(str::to_owned)
}

/// The id in one part of a path: `ID`, `docker-ID.scope`, `…:cri-containerd:ID`.
fn id_in(part: &str) -> Option<&str> {
    let stem = part.strip_suffix(".scope").unwrap_or(part);
    let (engine, id) = match stem.rfind(['-', ':']) {
        Some(at) if !is_fargate(stem) => (&stem[..at], &stem[at + 1..]),
        _ => ("", stem),
    };
    // conmon watches the container from outside
    if engine.ends_with("conmon") {
        return None;
    }
    (is_fargate(id) || (id.len() == 64 && is_hex(id))).then(|| &id[..SHORT_ID])
}

/// AWS Fargate: 32 hexadecimal digits, a dash, decimal digits.
fn is_fargate(part: &str) -> bool {
    part.split_once('-').is_some_and(|(id, number)| {
        id.len() == 32
            && is_hex(id)
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn lxc_name<'a>(parent: Option<&str>, part: &'a str) -> Option<&'a str> {
    let name = match parent {
        Some("lxc" | "lxc.payload") => part,
        _ => part.strip_prefix("lxc.payload.")?,
    };
    (!name.is_empty()).then_some(name)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const SHORT_A: Option<&str> = Some("0123456789ab");
    const SHORT_B: Option<&str> = Some("fedcba987654");

    #[test]
    fn the_container_is_found_in_the_path_of_every_engine() {
        for (path, expected) in [
            // docker: cgroupfs driver, systemd driver, a systemd inside the container
            ("/docker/A", SHORT_A),
            ("/system.slice/docker-A.scope", SHORT_A),
            ("/system.slice/docker-A.scope/init.scope", SHORT_A),
            ("/docker/A/system.slice/nginx.service", SHORT_A),
            // rootless docker
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-A.scope",
                SHORT_A,
            ),
            // podman: root, rootless, cgroupfs, with the container's own cgroup below
            ("/machine.slice/libpod-A.scope", SHORT_A),
            ("/machine.slice/libpod-A.scope/container", SHORT_A),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-A.scope/container",
                SHORT_A,
            ),
            ("/libpod_parent/libpod-A", SHORT_A),
            ("/machine.slice/libpod-conmon-A.scope", None),
            // containerd without kubernetes
            ("/default/A", SHORT_A),
            ("/system.slice/nerdctl-A.scope", SHORT_A),
            // kubernetes: cgroupfs, systemd with containerd and with CRI-O, old containerd
            (
                "/kubepods/burstable/pod8c7e9a6e-1f0b-4a35-9d3f-0b5c1e1f2a3b/A",
                SHORT_A,
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8c7e9a6e_1f0b_4a35_9d3f_0b5c1e1f2a3b.slice/cri-containerd-A.scope",
                SHORT_A,
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/crio-A.scope/container",
                SHORT_A,
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/crio-conmon-A.scope",
                None,
            ),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:A",
                SHORT_A,
            ),
            (
                "/kubepods/burstable/pod8c7e9a6e-1f0b-4a35-9d3f-0b5c1e1f2a3b",
                None,
            ),
            // Amazon ECS on an instance, and Fargate
            ("/ecs/0123456789abcdef0123456789abcdef/A", SHORT_A),
            (
                "/ecs/fedcba9876543210fedcba9876543210/0123456789abcdef0123456789abcdef-1234567890",
                SHORT_A,
            ),
            // the innermost one counts
            ("/docker/A/docker/B", SHORT_B),
            (
                "/docker/A/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-containerd-B.scope",
                SHORT_B,
            ),
            ("/lxc.payload.web/docker/A", SHORT_A),
            // LXC names its containers
            ("/lxc/web", Some("web")),
            ("/lxc/web/system.slice/ssh.service", Some("web")),
            ("/lxc.payload/web", Some("web")),
            ("/lxc.payload.web/init.scope", Some("web")),
            ("/lxc.monitor.web", None),
            // no container
            ("/", None),
            ("", None),
            ("/system.slice/nginx.service", None),
            ("/user.slice/user-1000.slice/session-3.scope", None),
            ("/system.slice/docker.service", None),
            ("/docker/not-an-id", None),
            ("/docker/0123456789ab", None),
        ] {
            let path = path.replace('A', A).replace('B', B);
            assert_eq!(container(&path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_unit_is_the_innermost_one() {
        for (path, expected) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-editor.service",
                Some("app-editor.service"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                Some("init.scope"),
            ),
            ("/system.slice/nginx.service/worker", Some("nginx.service")),
            (
                "/system.slice/run-media\\x2dstick.mount",
                Some("run-media\\x2dstick.mount"),
            ),
            ("/system.slice/_cpu.service", Some("cpu.service")),
            ("/system.slice", None),
            ("/user.slice/user-1000.slice", None),
            ("/docker/0123", None),
            ("/.service", None),
            ("/", None),
        ] {
            assert_eq!(unit(path).as_deref(), expected, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_is_too_strange(path in "[/a-f0-9:.@_\\-é]{0,200}") {
            if let Some(id) = container(&path) {
                proptest::prop_assert!(path.contains(&id));
            }
            if let Some(unit) = unit(&path) {
                proptest::prop_assert!(path.contains(&unit));
            }
        }
    }
}
