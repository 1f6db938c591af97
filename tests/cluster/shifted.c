/* Runs a program, and all that it starts, by a wall clock that is so many seconds ahead or behind:
 *
 *   shifted SECONDS PROGRAM...
 *
 * The wall clock belongs to the whole machine and no namespace has its own. So a second process traces
 * them: it takes the vDSO away at each exec, which leaves the system call, and answers that itself. It
 * stays as long as any of them does. x86-64, and as root. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile pid_t program;
static long shift;

static void die(const char *what) {
    perror(what);
    exit(125);
}

/* Traced calls: clock_gettime of CLOCK_REALTIME and CLOCK_REALTIME_COARSE. */
static void filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLOCK_REALTIME, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLOCK_REALTIME_COARSE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog whole = {sizeof code / sizeof *code, code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &whole))
        die("seccomp");
}

/* The new program finds no vDSO in what the kernel tells it (arguments, environment, then pairs), and no
 * ELF file in one that it knows of otherwise. */
static void hide_vdso(pid_t pid) {
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, pid, 0, &regs))
        return;
    unsigned long at = regs.rsp;
    at += 8 * (ptrace(PTRACE_PEEKDATA, pid, at, 0) + 2);
    while (ptrace(PTRACE_PEEKDATA, pid, at, 0))
        at += 8;
    for (at += 8;; at += 16) {
        long kind = ptrace(PTRACE_PEEKDATA, pid, at, 0);
        if (kind == AT_NULL)
            return;
        if (kind == AT_SYSINFO_EHDR) {
            ptrace(PTRACE_POKEDATA, pid, ptrace(PTRACE_PEEKDATA, pid, at + 8, 0), 0);
            ptrace(PTRACE_POKEDATA, pid, at, AT_IGNORE);
        }
    }
}

static void answer(pid_t pid) {
    struct user_regs_struct regs;
    struct timespec now;
    if (ptrace(PTRACE_GETREGS, pid, 0, &regs))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += shift;
    struct iovec here = {&now, sizeof now}, there = {(void *)regs.rsi, sizeof now};
    regs.orig_rax = -1;
    regs.rax = process_vm_writev(pid, &here, 1, &there, 1, 0) < 0 ? -EFAULT : 0;
    ptrace(PTRACE_SETREGS, pid, 0, &regs);
}

static void trace(int ended) {
    const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE |
                         PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
    int status;
    if (waitpid(program, &status, 0) != program || !WIFSTOPPED(status))
        die("wait for the program");
    if (ptrace(PTRACE_SETOPTIONS, program, 0, options) || ptrace(PTRACE_CONT, program, 0, 0))
        die("ptrace");
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
        if (pid == program && !WIFSTOPPED(status) && write(ended, &status, sizeof status) < 0)
            die("pipe");
        if (!WIFSTOPPED(status))
            continue;
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP)
            answer(pid);
        if (event == PTRACE_EVENT_EXEC)
            hide_vdso(pid);
        /* What begins is stopped once. */
        siginfo_t why;
        int own = event || signal == SIGSTOP || ptrace(PTRACE_GETSIGINFO, pid, 0, &why);
        ptrace(PTRACE_CONT, pid, 0, own ? 0 : signal);
    }
}

static void hand_on(int signal) {
    kill(program, signal);
}

int main(int count, char **words) {
    int begun[2], ended[2], status;
    if (count < 3)
        return 125;
    shift = atol(words[1]);
    if (pipe2(begun, O_CLOEXEC) || pipe2(ended, O_CLOEXEC))
        die("pipe");
    if (!fork()) {
        setsid();
        program = fork();
        if (!program) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            filter();
            execvp(words[2], words + 2);
            die(words[2]);
        }
        pid_t known = program;
        if (write(begun[1], &known, sizeof known) < 0)
            die("pipe");
        close(ended[0]);
        trace(ended[1]);
        return 0;
    }
    pid_t known;
    close(ended[1]);
    if (read(begun[0], &known, sizeof known) != sizeof known)
        die("begin");
    program = known;
    signal(SIGTERM, hand_on);
    while (read(ended[0], &status, sizeof status) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
