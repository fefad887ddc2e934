//! Where members lie in the running kernel's structures, set as constants before the programs load.

/// Declares [`Offsets`] and the table that says which member fills which field.
macro_rules! offsets {
    ($($field:ident: $structure:literal $member:literal),* $(,)?) => {
        /// Byte offsets of structure members; [`MISSING`] for a member this kernel does not have.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets { $(pub $field: u32,)* }

        impl Offsets {
            /// Structure and member of each field, in the order of the fields.
            /// A member inside a member is written `outer.inner`.
            pub const MEMBERS: &'static [(&'static str, &'static str)] = &[$(($structure, $member),)*];

            pub const fn missing() -> Self {
                Self { $($field: MISSING,)* }
            }

            pub fn from_array(values: [u32; Self::MEMBERS.len()]) -> Self {
                let [$($field,)*] = values;
                Self { $($field,)* }
            }
        }
    };
}

/// Value of an offset whose member does not exist.
pub const MISSING: u32 = u32::MAX;

offsets! {
    sk_daddr: "sock_common" "skc_daddr",
    sk_rcv_saddr: "sock_common" "skc_rcv_saddr",
    sk_dport: "sock_common" "skc_dport",
    sk_num: "sock_common" "skc_num",
    sk_family: "sock_common" "skc_family",
    sk_state: "sock_common" "skc_state",
    sk_net: "sock_common" "skc_net.net",
    sk_v6_daddr: "sock_common" "skc_v6_daddr",
    sk_v6_rcv_saddr: "sock_common" "skc_v6_rcv_saddr",
    sk_cookie: "sock_common" "skc_cookie",
    sk_flags: "sock_common" "skc_flags",
    sk_type: "sock" "sk_type",
    sk_protocol: "sock" "sk_protocol",
    sk_err: "sock" "sk_err",
    sk_shutdown: "sock" "sk_shutdown",
    sk_socket: "sock" "sk_socket",
    sk_max_ack_backlog: "sock" "sk_max_ack_backlog",
    inet_sport: "inet_sock" "inet_sport",
    net_inum: "net" "ns.inum",
    socket_sk: "socket" "sk",
    socket_file: "socket" "file",
    tcp_bytes_received: "tcp_sock" "bytes_received",
    tcp_bytes_sent: "tcp_sock" "bytes_sent",
    tcp_bytes_retrans: "tcp_sock" "bytes_retrans",
    tcp_srtt_us: "tcp_sock" "srtt_us",
    tcp_total_retrans: "tcp_sock" "total_retrans",
    tcp_is_mptcp: "tcp_sock" "is_mptcp",
    mptcp_first: "mptcp_sock" "first",
    icsk_ulp_data: "inet_connection_sock" "icsk_ulp_data",
    icsk_pending: "inet_connection_sock" "icsk_pending",
    subflow_conn: "mptcp_subflow_context" "conn",
    task_tgid: "task_struct" "tgid",
    task_pid: "task_struct" "pid",
    task_real_parent: "task_struct" "real_parent",
    task_group_leader: "task_struct" "group_leader",
    task_comm: "task_struct" "comm",
    task_files: "task_struct" "files",
    task_mm: "task_struct" "mm",
    task_signal: "task_struct" "signal",
    task_exit_code: "task_struct" "exit_code",
    task_stack: "task_struct" "stack",
    task_cred: "task_struct" "real_cred",
    cred_uid: "cred" "uid",
    cred_gid: "cred" "gid",
    task_cgroups: "task_struct" "cgroups",
    css_set_default: "css_set" "dfl_cgrp",
    signal_live: "signal_struct" "live",
    mm_arg_start: "mm_struct" "arg_start",
    mm_arg_end: "mm_struct" "arg_end",
    mm_exe_file: "mm_struct" "exe_file",
    files_fdt: "files_struct" "fdt",
    fdt_fd: "fdtable" "fd",
    fdt_max_fds: "fdtable" "max_fds",
    file_private_data: "file" "private_data",
    file_path_mnt: "file" "f_path.mnt",
    file_path_dentry: "file" "f_path.dentry",
    dentry_parent: "dentry" "d_parent",
    dentry_name: "dentry" "d_name.name",
    vfsmount_root: "vfsmount" "mnt_root",
    mount_mnt: "mount" "mnt",
    mount_parent: "mount" "mnt_parent",
    mount_mountpoint: "mount" "mnt_mountpoint",
    regs_di: "pt_regs" "di",
    regs_si: "pt_regs" "si",
    regs_dx: "pt_regs" "dx",
    io_kiocb_opcode: "io_kiocb" "opcode",
    io_kiocb_file: "io_kiocb" "file",
    io_kiocb_async_data: "io_kiocb" "async_data",
    io_async_msghdr_addr: "io_async_msghdr" "addr",
    io_connect_addr: "io_connect" "addr",
    io_accept_file_slot: "io_accept" "file_slot",
    cqe_res: "io_uring_cqe" "res",
    cgroup_kn: "cgroup" "kn",
    kernfs_id: "kernfs_node" "id",
    cgroup_root: "cgroup" "root",
    cgroup_hierarchy: "cgroup_root" "hierarchy_id",
}

/// What else the loader tells the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// 1 when tracing programs may call `bpf_get_socket_cookie`.
    pub cookie_helper: u32,
    /// 1 when `bpf_get_current_task_btf` exists.
    pub task_btf_helper: u32,
    /// 1 when `bpf_task_pt_regs` exists.
    pub task_pt_regs_helper: u32,
    /// Bit `1 << kind` for every [`crate::Kind`] wanted.
    pub kinds: u32,
    /// 1 when the tracepoint tcp_send_reset tells the reason.
    pub reset_reason: u32,
    /// 1 when the tracepoint io_uring_complete passes the completion as a structure.
    pub uring_cqe: u32,
    /// 1 when typed tracing programs can be preempted, 2 when those of perf tracepoints can be, too:
    /// stand-ins are attached for some of them.
    pub standins: u32,
}
