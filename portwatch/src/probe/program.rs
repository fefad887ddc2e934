//! A single program: loaded for its hook and attached to it, and what the kernel says against that.

use std::any::Any;

use anyhow::{Context, Result};
use aya::Btf;
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSock, CgroupSockAddr, FEntry, FExit, Iter, KProbe,
    Program, ProgramError, SockOps, TracePoint,
};

use super::plan::Hook;
use super::{cgroup2, tracefs};

/// What holds a program in its place; dropping it detaches.
pub type Link = Box<dyn Any + Send>;

/// Loads a program for its hook, unless it is loaded.
pub fn load(program: &mut Program, hook: Hook, btf: &Btf) -> Result<(), ProgramError> {
    let result = match hook {
        Hook::Tracepoint(..) => <&mut TracePoint>::try_from(program)?.load(),
        Hook::RetransmitWithError => {
            <&mut BtfTracePoint>::try_from(program)?.load("tcp_retransmit_skb", btf)
        }
        Hook::TpBtf(tracepoint) => <&mut BtfTracePoint>::try_from(program)?.load(tracepoint, btf),
        Hook::Fentry(function) => <&mut FEntry>::try_from(program)?.load(function, btf),
        Hook::Fexit(function) => <&mut FExit>::try_from(program)?.load(function, btf),
        Hook::Kprobe(_) | Hook::Kretprobe(_) => <&mut KProbe>::try_from(program)?.load(),
        Hook::CgroupSock(_) => <&mut CgroupSock>::try_from(program)?.load(),
        Hook::CgroupSockAddr(_) => <&mut CgroupSockAddr>::try_from(program)?.load(),
        Hook::SockOps => <&mut SockOps>::try_from(program)?.load(),
        Hook::Iter(kind) => <&mut Iter>::try_from(program)?.load(kind, btf),
        Hook::CookieHelper | Hook::FunctionProbes => Ok(()),
    };
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}

/// Attaches a program to its hook, loading it first where it is not.
pub fn attach(program: &mut Program, hook: Hook, btf: &Btf) -> Result<Link> {
    load(program, hook, btf)?;
    Ok(match hook {
        Hook::Tracepoint(category, name) => {
            let program: &mut TracePoint = program.try_into()?;
            let link = tracefs::with(|| program.attach(category, name))??;
            Box::new(program.take_link(link)?)
        }
        Hook::TpBtf(_) | Hook::RetransmitWithError => {
            let program: &mut BtfTracePoint = program.try_into()?;
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        Hook::Fentry(_) => {
            let program: &mut FEntry = program.try_into()?;
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        Hook::Fexit(_) => {
            let program: &mut FExit = program.try_into()?;
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        Hook::Kprobe(function) | Hook::Kretprobe(function) => {
            let program: &mut KProbe = program.try_into()?;
            let link = program.attach(function, 0)?;
            Box::new(program.take_link(link)?)
        }
        Hook::CgroupSock(_) => {
            let program: &mut CgroupSock = program.try_into()?;
            let link = program.attach(cgroup2::open()?, CgroupAttachMode::Single)?;
            Box::new(program.take_link(link)?)
        }
        Hook::CgroupSockAddr(_) => {
            let program: &mut CgroupSockAddr = program.try_into()?;
            let link = program.attach(cgroup2::open()?, CgroupAttachMode::Single)?;
            Box::new(program.take_link(link)?)
        }
        Hook::SockOps => {
            let program: &mut SockOps = program.try_into()?;
            let link = program.attach(cgroup2::open()?, CgroupAttachMode::Single)?;
            Box::new(program.take_link(link)?)
        }
        Hook::Iter(_) => {
            let program: &mut Iter = program.try_into()?;
            let link = program.attach()?;
            let mut walk = program.take_link(link)?.into_file()?;
            std::io::copy(&mut walk, &mut std::io::sink()).context("walking open files")?;
            Box::new(())
        }
        Hook::CookieHelper | Hook::FunctionProbes => Box::new(()),
    })
}

/// How lines of the verifier's log begin that say how much it worked, not what it found.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// An error in the kernel's own words: the last lines of the verifier where it spoke, else the errno.
pub fn words(error: &anyhow::Error) -> String {
    if let Some(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = error.downcast_ref()
    {
        let log = verifier_log.to_string();
        let said: Vec<&str> = (log.lines().map(str::trim))
            .filter(|l| !l.is_empty() && !STATISTICS.iter().any(|s| l.starts_with(s)))
            .collect();
        let tail = said[said.len().saturating_sub(2)..].join("; ");
        return if tail.is_empty() {
            io_error.to_string()
        } else {
            format!("{io_error}: {tail}")
        };
    }
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain().map(|e| e.to_string()) {
        if !texts.iter().any(|text| text.contains(&cause)) {
            texts.push(cause);
        }
    }
    texts.join(": ")
}
