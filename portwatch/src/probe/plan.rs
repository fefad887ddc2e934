//! The plan: for each thing to observe, the alternatives in the order in which they are tried.

use super::Tier;

/// One thing to observe.
pub struct Thing {
    pub observe: &'static str,
    /// Without it a tier cannot serve.
    pub required: bool,
    /// What is missed when nothing serves it.
    pub loses: &'static str,
    pub alternatives: &'static [Alternative],
}

/// Probes that together observe a thing.
pub struct Alternative {
    /// The tier it belongs to; `None`: it is part of every tier.
    pub tier: Option<Tier>,
    pub probes: &'static [Probe],
}

impl Alternative {
    pub fn serves(&self, tier: Tier) -> bool {
        self.tier.is_none_or(|of| of == tier)
    }
}

/// A program in the object and what it attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub program: &'static str,
    pub hook: Hook,
    /// Left out, without harm, where the kernel has no such function (IPv6 or MPTCP not built in).
    pub if_present: bool,
}

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A raw tracepoint with typed arguments.
    TpBtf(&'static str),
    /// `tp_btf tcp_retransmit_skb` where it also tells of SYNs that could not be sent again (6.13).
    RetransmitWithError,
    /// A perf tracepoint, of a category.
    Tracepoint(&'static str, &'static str),
    Fentry(&'static str),
    Fexit(&'static str),
    Kprobe(&'static str),
    Kretprobe(&'static str),
    /// The root of the cgroup v2 hierarchy; text is the hook's name there.
    CgroupSock(&'static str),
    CgroupSockAddr(&'static str),
    SockOps,
    /// A program that runs once, over all open files of all tasks.
    Iter(&'static str),
    /// No program: tracing programs may make socket cookies themselves.
    CookieHelper,
    /// No program: the function-level probes see io_uring as they see syscalls.
    FunctionProbes,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TpBtf(name) => write!(f, "tp_btf {name}"),
            Self::RetransmitWithError => f.write_str("tp_btf tcp_retransmit_skb with errors"),
            Self::Tracepoint(category, name) => write!(f, "tracepoint {category}/{name}"),
            Self::Fentry(name) => write!(f, "fentry {name}"),
            Self::Fexit(name) => write!(f, "fexit {name}"),
            Self::Kprobe(name) => write!(f, "kprobe {name}"),
            Self::Kretprobe(name) => write!(f, "kretprobe {name}"),
            Self::CgroupSock(name) | Self::CgroupSockAddr(name) => write!(f, "cgroup {name}"),
            Self::SockOps => f.write_str("cgroup sock_ops"),
            Self::Iter(name) => write!(f, "iter {name}"),
            Self::CookieHelper => f.write_str("bpf_get_socket_cookie in tracing programs"),
            Self::FunctionProbes => f.write_str("the function-level probes"),
        }
    }
}

impl Hook {
    /// The kernel function a hook is put on.
    pub fn function(&self) -> Option<&'static str> {
        match self {
            Self::Fentry(name) | Self::Fexit(name) | Self::Kprobe(name) | Self::Kretprobe(name) => {
                Some(name)
            }
            _ => None,
        }
    }
}

const fn probe(program: &'static str, hook: Hook) -> Probe {
    Probe {
        program,
        hook,
        if_present: false,
    }
}

const fn if_present(program: &'static str, hook: Hook) -> Probe {
    Probe {
        program,
        hook,
        if_present: true,
    }
}

const fn tp_btf(name: &'static str) -> Probe {
    probe(name, TpBtf(name))
}

const fn sys_exit(name: &'static str) -> Probe {
    probe("sys_exit", Tracepoint("syscalls", name))
}

use Hook::*;
use Tier::Trampoline;

/// Things whose probes differ between tiers come first, so that a tier that cannot serve is left early.
pub const PLAN: &[Thing] = &[
    Thing {
        observe: "bind",
        required: true,
        loses: "binds and why they failed",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[
                    probe("exit_inet_bind", Fexit("__inet_bind")),
                    if_present("exit_inet6_bind", Fexit("__inet6_bind")),
                    if_present("exit_mptcp_bind", Fexit("mptcp_bind")),
                ],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[
                    probe("kretprobe_inet_bind", Kretprobe("__inet_bind")),
                    if_present("kretprobe_inet_bind", Kretprobe("__inet6_bind")),
                    if_present("kretprobe_mptcp_bind", Kretprobe("mptcp_bind")),
                    probe("kprobe_inet_bind", Kprobe("__inet_bind")),
                    if_present("kprobe_inet_bind", Kprobe("__inet6_bind")),
                    if_present("kprobe_mptcp_bind", Kprobe("mptcp_bind")),
                ],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[sys_exit("sys_exit_bind")],
            },
        ],
    },
    Thing {
        observe: "listen",
        required: true,
        loses: "listens and why they failed",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[
                    probe("exit_inet_listen", Fexit("inet_listen")),
                    if_present("exit_mptcp_listen", Fexit("mptcp_listen")),
                    if_present("exit_no_listen", Fexit("sock_no_listen")),
                ],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[
                    probe("kretprobe_inet_listen", Kretprobe("inet_listen")),
                    if_present("kretprobe_mptcp_listen", Kretprobe("mptcp_listen")),
                    if_present("kretprobe_inet_listen", Kretprobe("sock_no_listen")),
                    probe("kprobe_inet_listen", Kprobe("inet_listen")),
                    if_present("kprobe_mptcp_listen", Kprobe("mptcp_listen")),
                    if_present("kprobe_inet_listen", Kprobe("sock_no_listen")),
                ],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[sys_exit("sys_exit_listen")],
            },
        ],
    },
    Thing {
        observe: "connects that fail at once",
        required: true,
        loses: "connects that fail within the call, such as ENETUNREACH",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[
                    probe("exit_tcp_v4_connect", Fexit("tcp_v4_connect")),
                    if_present("exit_tcp_v6_connect", Fexit("tcp_v6_connect")),
                ],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[
                    probe("kretprobe_tcp_v4_connect", Kretprobe("tcp_v4_connect")),
                    if_present("kretprobe_tcp_v6_connect", Kretprobe("tcp_v6_connect")),
                    probe("kprobe_tcp_v4_connect", Kprobe("tcp_v4_connect")),
                    if_present("kprobe_tcp_v6_connect", Kprobe("tcp_v6_connect")),
                ],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[sys_exit("sys_exit_connect")],
            },
        ],
    },
    Thing {
        observe: "accept",
        required: true,
        loses: "accepts and the owners of accepted connections",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[probe("entry_inet_accept", Fentry("__inet_accept"))],
            },
            Alternative {
                tier: Some(Trampoline),
                probes: &[probe("entry_sock_graft", Fentry("security_sock_graft"))],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[probe("kprobe_inet_accept", Kprobe("__inet_accept"))],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[probe("kprobe_sock_graft", Kprobe("security_sock_graft"))],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[sys_exit("sys_exit_accept"), sys_exit("sys_exit_accept4")],
            },
        ],
    },
    Thing {
        observe: "udp bind, also implicit",
        required: true,
        loses: "binds of udp sockets",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[probe("exit_udp_lib_get_port", Fexit("udp_lib_get_port"))],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[
                    probe("kretprobe_udp_lib_get_port", Kretprobe("udp_lib_get_port")),
                    probe("kprobe_udp_lib_get_port", Kprobe("udp_lib_get_port")),
                ],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[
                    sys_exit("sys_exit_bind"),
                    sys_exit("sys_exit_connect"),
                    probe("cgroup_sendmsg4", CgroupSockAddr("sendmsg4")),
                    probe("cgroup_sendmsg6", CgroupSockAddr("sendmsg6")),
                ],
            },
        ],
    },
    Thing {
        observe: "udp connect",
        required: true,
        loses: "connects of udp sockets",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[
                    probe("exit_ip4_datagram_connect", Fexit("__ip4_datagram_connect")),
                    if_present("exit_ip6_datagram_connect", Fexit("__ip6_datagram_connect")),
                ],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[
                    probe(
                        "kretprobe_ip4_datagram_connect",
                        Kretprobe("__ip4_datagram_connect"),
                    ),
                    if_present(
                        "kretprobe_ip6_datagram_connect",
                        Kretprobe("__ip6_datagram_connect"),
                    ),
                    probe(
                        "kprobe_ip4_datagram_connect",
                        Kprobe("__ip4_datagram_connect"),
                    ),
                    if_present(
                        "kprobe_ip6_datagram_connect",
                        Kprobe("__ip6_datagram_connect"),
                    ),
                ],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[sys_exit("sys_exit_connect")],
            },
        ],
    },
    Thing {
        observe: "udp release",
        required: true,
        loses: "closes of udp sockets",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[
                    probe("entry_udp_destroy_sock", Fentry("udp_destroy_sock")),
                    if_present("entry_udpv6_destroy_sock", Fentry("udpv6_destroy_sock")),
                ],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[
                    probe("kprobe_udp_destroy_sock", Kprobe("udp_destroy_sock")),
                    if_present("kprobe_udp_destroy_sock", Kprobe("udpv6_destroy_sock")),
                ],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[probe("cgroup_sock_release", CgroupSock("sock_release"))],
            },
        ],
    },
    Thing {
        observe: "binds refused early",
        required: false,
        loses: "binds that a security module or a cgroup refuses, or whose address cannot be read",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[
                    probe("exit_sys_bind", Fexit("__x64_sys_bind")),
                    if_present("entry_socket_bind", Fentry("security_socket_bind")),
                ],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[
                    probe("kretprobe_sys_bind", Kretprobe("__x64_sys_bind")),
                    probe("kprobe_sys_bind", Kprobe("__x64_sys_bind")),
                ],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[sys_exit("sys_exit_bind")],
            },
        ],
    },
    Thing {
        observe: "io_uring",
        required: false,
        loses: "accepts, binds, listens and udp connects made through io_uring",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[probe("", FunctionProbes)],
            },
            Alternative {
                tier: Some(Tier::Kprobe),
                probes: &[probe("", FunctionProbes)],
            },
            Alternative {
                tier: Some(Tier::Tracepoint),
                probes: &[tp_btf("io_uring_complete")],
            },
        ],
    },
    Thing {
        observe: "socket cookies",
        required: false,
        loses: "the field `sock` of sockets whose cookie nobody asked for",
        alternatives: &[
            Alternative {
                tier: Some(Trampoline),
                probes: &[probe("", CookieHelper)],
            },
            Alternative {
                tier: None,
                probes: &[
                    probe("", CookieHelper),
                    probe("cgroup_sock_create", CgroupSock("sock_create")),
                ],
            },
            Alternative {
                tier: None,
                probes: &[
                    probe("cgroup_sock_create", CgroupSock("sock_create")),
                    probe("sock_ops_established", SockOps),
                ],
            },
        ],
    },
    Thing {
        observe: "tcp states",
        required: true,
        loses: "outcomes of connects, and closes",
        alternatives: &[Alternative {
            tier: None,
            probes: &[tp_btf("inet_sock_set_state")],
        }],
    },
    Thing {
        observe: "tcp release",
        required: true,
        loses: "closes of sockets that were only bound",
        alternatives: &[Alternative {
            tier: None,
            probes: &[tp_btf("tcp_destroy_sock")],
        }],
    },
    Thing {
        observe: "resets received",
        required: false,
        loses: "reset events of resets received",
        alternatives: &[Alternative {
            tier: None,
            probes: &[tp_btf("inet_sock_set_state")],
        }],
    },
    Thing {
        observe: "resets sent",
        required: false,
        loses: "reset events of resets sent",
        alternatives: &[Alternative {
            tier: None,
            probes: &[tp_btf("tcp_send_reset")],
        }],
    },
    Thing {
        observe: "slow connects",
        required: false,
        loses: "the announcement (EINPROGRESS) of connects that take longer than a second",
        alternatives: &[
            Alternative {
                tier: None,
                probes: &[probe("tcp_retransmit_skb", RetransmitWithError)],
            },
            Alternative {
                tier: None,
                probes: &[tp_btf("tcp_cong_state_set")],
            },
            Alternative {
                tier: None,
                probes: &[tp_btf("tcp_retransmit_skb")],
            },
        ],
    },
    Thing {
        observe: "processes",
        required: false,
        loses: "exe, args and parents of processes that end before they can be looked up",
        alternatives: &[Alternative {
            tier: None,
            probes: &[
                tp_btf("sched_process_fork"),
                tp_btf("sched_process_exec"),
                tp_btf("sched_process_exit"),
            ],
        }],
    },
    Thing {
        observe: "cgroups",
        required: false,
        loses: "paths of cgroups that are removed before they can be looked up",
        alternatives: &[Alternative {
            tier: None,
            probes: &[tp_btf("cgroup_mkdir")],
        }],
    },
    // Last: from here on everything new is seen, and this finds the rest.
    Thing {
        observe: "sockets open at the start",
        required: false,
        loses: "owners of sockets that were open before portwatch",
        alternatives: &[Alternative {
            tier: None,
            probes: &[probe("open_sockets", Iter("task_file"))],
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_required_thing_has_an_alternative_in_every_tier() {
        for thing in PLAN.iter().filter(|thing| thing.required) {
            for tier in Tier::ALL {
                let served = thing
                    .alternatives
                    .iter()
                    .any(|a| a.tier.is_none_or(|t| t == tier));
                assert!(served, "{} in tier {tier}", thing.observe);
            }
        }
    }
}
