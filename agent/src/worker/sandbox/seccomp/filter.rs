//! The list itself, and what it is compiled to.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::worker::sandbox::profile::{Accelerator, Profile};

/// A condition on one argument.
struct When {
    argument: u8,
    mask: u64,
    value: u64,
}

/// Allowed whatever is asked.
const ALWAYS: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // What is open, and what Landlock lets it open.
    libc::SYS_close,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
    // Threads.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Its own signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time and chance.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // What it is told of itself and the machine.
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older forms of the same, which one processor still has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] =
    &[libc::SYS_access, libc::SYS_lstat, libc::SYS_poll, libc::SYS_readlink, libc::SYS_stat, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// A thread of this process, in the namespaces that it is in.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as u64;
/// Any of these opens a file for more than to read it.
const NOT_ONLY_READ: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;

/// The list, compiled for one accelerator.
#[derive(Debug)]
pub struct Filter {
    programs: [BpfProgram; 2],
}

impl Filter {
    /// Compiles it; nothing is closed yet.
    pub fn compile(accelerator: Accelerator) -> io::Result<Self> {
        Ok(Self { programs: [absent()?, allowed(accelerator.profile())?] })
    }

    /// Closes all system calls but these, for every thread of this process. Whether the kernel could.
    pub fn close(&self) -> io::Result<bool> {
        for program in &self.programs {
            match seccompiler::apply_filter_all_threads(program) {
                Ok(()) => {}
                Err(seccompiler::Error::Seccomp(error))
                    if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(true)
    }
}

/// `clone3` gives its flags in memory, where no filter sees them. Both C libraries do with `clone` where
/// the kernel is too old for it.
fn absent() -> io::Result<BpfProgram> {
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    program(BTreeMap::from([(libc::SYS_clone3, vec![])]), SeccompAction::Allow, absent)
}

fn allowed(profile: &Profile) -> io::Result<BpfProgram> {
    let own = u64::from(std::process::id());
    let prctl = |option: libc::c_int| When { argument: 0, mask: u32::MAX.into(), value: option as u64 };
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    // With an empty condition list, always.
    for call in ALWAYS.iter().chain(OLDER).chain(profile.calls).chain(&[libc::SYS_clone3]) {
        rules.insert(*call, vec![]);
    }
    let mut when = |call: c_long, any_of: &[&[When]]| {
        let all: Result<Vec<SeccompRule>, io::Error> = any_of.iter().map(|all_of| rule(all_of)).collect();
        all.map(|all| rules.entry(call).or_insert(all)).map(drop)
    };
    let thread = When { argument: 0, mask: THREAD | NEW_NAMESPACES, value: THREAD };
    when(libc::SYS_clone, &[&[thread]])?;
    let own_process = When { argument: 0, mask: u32::MAX.into(), value: own };
    when(libc::SYS_tgkill, &[&[own_process]])?;
    let names = [libc::PR_GET_NAME, libc::PR_SET_NAME, libc::PR_SET_VMA].map(|option| [prctl(option)]);
    when(libc::SYS_prctl, &names.each_ref().map(<[When; 1]>::as_slice))?;
    // To read its own limits, not to set any.
    let of = |process| When { argument: 0, mask: u32::MAX.into(), value: process };
    let nothing_new = || When { argument: 2, mask: u64::MAX, value: 0 };
    when(libc::SYS_prlimit64, &[&[of(0), nothing_new()], &[of(own), nothing_new()]])?;
    let forbidding = |argument, mask: u64| match profile.loose {
        true => When { argument, mask: 0, value: 0 },
        false => When { argument, mask, value: 0 },
    };
    when(libc::SYS_openat, &[&[forbidding(2, NOT_ONLY_READ)]])?;
    #[cfg(target_arch = "x86_64")]
    when(libc::SYS_open, &[&[forbidding(1, NOT_ONLY_READ)]])?;
    // Nothing that a model wrote is ever run.
    when(libc::SYS_mmap, &[&[forbidding(2, libc::PROT_EXEC as u64)]])?;
    when(libc::SYS_mprotect, &[&[forbidding(2, libc::PROT_EXEC as u64)]])?;
    program(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

fn rule(all_of: &[When]) -> io::Result<SeccompRule> {
    let condition = |when: &When| {
        let equal = SeccompCmpOp::MaskedEq(when.mask);
        SeccompCondition::new(when.argument, SeccompCmpArgLen::Qword, equal, when.value).map_err(io::Error::other)
    };
    let conditions: io::Result<Vec<SeccompCondition>> = all_of.iter().map(condition).collect();
    SeccompRule::new(conditions?).map_err(io::Error::other)
}

fn program(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> io::Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, matching, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    const ARCH: u32 = 0xC000_003E;
    #[cfg(target_arch = "aarch64")]
    const ARCH: u32 = 0xC000_00B7;
    const ALLOW: u32 = 0x7FFF_0000;
    const ERRNO: u32 = 0x0005_0000;
    const KILL: u32 = 0x8000_0000;

    /// What the kernel's machine would return: the instructions that the compiler emits, no more.
    fn run(program: &BpfProgram, arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let words: Vec<u32> = [call, arch, 0, 0]
            .into_iter()
            .chain(arguments.iter().flat_map(|argument| [*argument as u32, (argument >> 32) as u32]))
            .collect();
        let (mut at, mut held) = (0, 0);
        loop {
            let line = &program[at];
            at += 1;
            let jump = |taken| usize::from(if taken { line.jt } else { line.jf });
            match line.code {
                0x20 => held = words[line.k as usize / 4],
                0x54 => held &= line.k,
                0x05 => at += line.k as usize,
                0x15 => at += jump(held == line.k),
                0x25 => at += jump(held > line.k),
                0x35 => at += jump(held >= line.k),
                0x06 => return line.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    /// As the kernel has it: the strictest of all filters.
    fn verdict(accelerator: Accelerator, arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let programs = Filter::compile(accelerator).expect("it compiles").programs;
        let rank = |verdict: &u32| match verdict & 0xFFFF_0000 {
            KILL => 0,
            ERRNO => 1,
            _ => 2,
        };
        let verdicts = programs.iter().map(|program| run(program, arch, call, arguments));
        verdicts.min_by_key(rank).expect("two programs")
    }

    fn asked(accelerator: Accelerator, call: c_long, arguments: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        verdict(accelerator, ARCH, call as u32, all)
    }

    #[test]
    fn what_computing_needs_is_allowed() {
        let own = u64::from(std::process::id());
        let check = |call, arguments: &[u64]| {
            assert_eq!(asked(Accelerator::None, call, arguments), ALLOW, "call {call} {arguments:?}");
        };
        for call in ALWAYS.iter().chain(OLDER) {
            check(*call, &[u64::MAX; 6]);
        }
        // As both C libraries start a thread.
        check(libc::SYS_clone, &[0x003D_0F00]);
        check(libc::SYS_clone, &[0x007D_0F00]);
        check(libc::SYS_tgkill, &[own, 7, 6]);
        check(libc::SYS_openat, &[0, 0, libc::O_CLOEXEC as u64]);
        check(libc::SYS_mmap, &[0, 1, (libc::PROT_READ | libc::PROT_WRITE) as u64]);
        check(libc::SYS_mprotect, &[0, 1, libc::PROT_READ as u64]);
        check(libc::SYS_prlimit64, &[0, 7, 0, 1]);
        check(libc::SYS_prlimit64, &[own, 7, 0, 1]);
        check(libc::SYS_prctl, &[libc::PR_SET_NAME as u64]);
    }

    #[test]
    fn what_reaches_out_is_refused() {
        let own = u64::from(std::process::id());
        let refused = ERRNO | libc::EPERM as u32;
        let check = |call, arguments: &[u64]| {
            assert_eq!(asked(Accelerator::None, call, arguments), refused, "call {call} {arguments:?}");
        };
        // Another process: fork, vfork and spawn differ from a thread in these flags alone.
        check(libc::SYS_clone, &[libc::SIGCHLD as u64]);
        check(libc::SYS_clone, &[(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64]);
        check(libc::SYS_clone, &[0x003D_0F00 | libc::CLONE_NEWUSER as u64]);
        check(libc::SYS_tgkill, &[own + 1, 7, 6]);
        check(libc::SYS_tgkill, &[own | 1 << 31, 7, 6]);
        // Files for more than to read; memory to run.
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC, libc::O_TMPFILE | libc::O_WRONLY] {
            check(libc::SYS_openat, &[0, 0, flags as u64]);
            #[cfg(target_arch = "x86_64")]
            check(libc::SYS_open, &[0, flags as u64]);
        }
        check(libc::SYS_mmap, &[0, 1, (libc::PROT_READ | libc::PROT_EXEC) as u64]);
        check(libc::SYS_mprotect, &[0, 1, (libc::PROT_WRITE | libc::PROT_EXEC) as u64]);
        check(libc::SYS_prlimit64, &[0, 7, 1, 0]);
        check(libc::SYS_prlimit64, &[own + 1, 7, 0, 1]);
        check(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64]);
        check(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as u64]);
        let calls = [
            libc::SYS_accept4,
            libc::SYS_add_key,
            libc::SYS_bind,
            libc::SYS_bpf,
            libc::SYS_chroot,
            libc::SYS_connect,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fchmodat,
            libc::SYS_finit_module,
            libc::SYS_ftruncate,
            libc::SYS_init_module,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_setup,
            libc::SYS_ioctl,
            libc::SYS_kexec_load,
            libc::SYS_keyctl,
            libc::SYS_kill,
            libc::SYS_linkat,
            libc::SYS_memfd_create,
            libc::SYS_mkdirat,
            libc::SYS_mount,
            libc::SYS_open_by_handle_at,
            libc::SYS_openat2,
            libc::SYS_perf_event_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_pivot_root,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_ptrace,
            libc::SYS_reboot,
            libc::SYS_renameat2,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_seccomp,
            libc::SYS_sendmsg,
            libc::SYS_sendto,
            libc::SYS_setns,
            libc::SYS_setuid,
            libc::SYS_shmget,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_tkill,
            libc::SYS_truncate,
            libc::SYS_unlinkat,
            libc::SYS_unshare,
            libc::SYS_userfaultfd,
        ];
        for call in calls {
            check(call, &[0; 6]);
            check(call, &[u64::MAX; 6]);
        }
        // Whatever comes with a later kernel.
        check(100_000, &[]);
    }

    #[test]
    fn a_thread_is_started_by_the_call_whose_flags_can_be_seen() {
        assert_eq!(asked(Accelerator::None, libc::SYS_clone3, &[]), ERRNO | libc::ENOSYS as u32);
    }

    #[test]
    fn other_tables_of_system_calls_are_no_way_around() {
        // The 32-bit table ends the process; x32 is the same table with a bit set.
        assert_eq!(verdict(Accelerator::None, 0x4000_0003, libc::SYS_read as u32, [0; 6]), KILL);
        let x32 = libc::SYS_read as u32 | 0x4000_0000;
        assert_eq!(verdict(Accelerator::None, ARCH, x32, [0; 6]), ERRNO | libc::EPERM as u32);
    }

    #[test]
    fn a_card_gets_its_devices_and_still_no_network() {
        let check = |call, arguments: &[u64], verdict| assert_eq!(asked(Accelerator::Cuda, call, arguments), verdict);
        check(libc::SYS_ioctl, &[u64::MAX; 6], ALLOW);
        check(libc::SYS_memfd_create, &[0; 6], ALLOW);
        check(libc::SYS_openat, &[0, 0, libc::O_RDWR as u64], ALLOW);
        check(libc::SYS_mmap, &[0, 1, libc::PROT_EXEC as u64], ALLOW);
        for call in [libc::SYS_socket, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_kill, libc::SYS_mount] {
            check(call, &[0; 6], ERRNO | libc::EPERM as u32);
        }
        check(libc::SYS_clone, &[libc::SIGCHLD as u64], ERRNO | libc::EPERM as u32);
    }
}
