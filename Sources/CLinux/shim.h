// Linux interfaces that Swift's Glibc module leaves out. One wrapper per call or macro; no logic.
#ifndef GATEWAY_CLINUX_SHIM_H
#define GATEWAY_CLINUX_SHIM_H

#include <malloc.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <string.h>
#include <stdint.h>
#include <unistd.h>

// Declared by <sys/socket.h> only under _GNU_SOURCE, which a module cannot set for its includers.
extern int accept4(int, struct sockaddr *, socklen_t *, int);
static inline int gw_accept4(int descriptor, struct sockaddr *address, socklen_t *length, int flags) {
    return accept4(descriptor, address, length, flags);
}

// EPOLL_EVENTS is an enum in C and imports as a type of its own; the loop wants plain bits.
enum {
    gw_epoll_in = 0x001,
    gw_epoll_out = 0x004,
    gw_epoll_error = 0x008,
    gw_epoll_hangup = 0x010,
    gw_epoll_peer_closed = 0x2000,
    gw_epoll_edge_triggered = 0x80000000,
};

// struct epoll_event is packed on x86-64; its union is easier to reach from C.
static inline int gw_epoll_control(int poller, int operation, int descriptor, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data = {.u64 = token}};
    return epoll_ctl(poller, operation, descriptor, &event);
}
static inline uint64_t gw_epoll_token(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t gw_epoll_events(const struct epoll_event *event) { return event->events; }

// prctl is variadic, which Swift does not import. The name is cut at 15 bytes by the kernel.
static inline void gw_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

static inline int gw_forbid_dumps(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

// fcntl is variadic, which Swift does not import.
static inline int gw_descriptor_flags(int descriptor) { return fcntl(descriptor, F_GETFD); }
static inline void gw_claim_descriptor(int descriptor) {
    fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
}
static inline int gw_duplicate(int descriptor) { return fcntl(descriptor, F_DUPFD_CLOEXEC, 3); }

static inline void gw_return_freed_memory(void) { malloc_trim(0); }

static inline int gw_is_listening(int descriptor) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 ? value : 0;
}

static inline int gw_is_regular_file(int descriptor) {
    struct stat info;
    return fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode);
}

// Declared by <unistd.h> only under _GNU_SOURCE.
extern int pipe2(int ends[2], int flags);
static inline int gw_pipe(int *reading, int *writing) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    *reading = ends[0];
    *writing = ends[1];
    return 0;
}

// Declared only under _GNU_SOURCE; fcntl is variadic. The numbers are those of <linux/memfd.h> and
// <linux/fcntl.h>: close on exec, may be sealed, never executable; and the four seals on size and content.
extern int memfd_create(const char *name, unsigned int flags);
enum { gw_memory_flags = 0x1 | 0x2, gw_memory_not_executable = 0x8, gw_memory_seals = 0x1 | 0x2 | 0x4 | 0x8 };
static inline int gw_memory(const char *name, unsigned int flags) { return memfd_create(name, flags); }
static inline int gw_add_seals(int descriptor, int seals) { return fcntl(descriptor, 1033, seals); }
static inline int gw_seals(int descriptor) { return fcntl(descriptor, 1034); }

// glibc has two functions of the name strerror_r; this is the one that POSIX describes.
extern int __xpg_strerror_r(int, char *, size_t);
static inline int gw_error_text(int code, char *text, size_t size) {
    return __xpg_strerror_r(code, text, size);
}

// Declared by <sched.h> and <unistd.h> only under _GNU_SOURCE.
#ifndef CLONE_PARENT
#define CLONE_PARENT 0x00008000
#endif
extern long syscall(long, ...);

// sched_getaffinity(2) without the macros that take _GNU_SOURCE; 0 when the kernel does not tell.
static inline int gw_allowed_processors(void) {
    unsigned long mask[128] = {0};
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    int count = 0;
    for (long index = 0; index < bytes / (long)sizeof mask[0]; index++)
        count += __builtin_popcountl(mask[index]);
    return count;
}

// Starts a program as a child of our own parent: posix_spawn cannot, and a service manager only supervises its own
// children. The first process of a container has no parent; its program is its own child. Between clone and exec there
// are only calls that a process with threads may make (signal-safety(7)).
static inline pid_t gw_start_beside(
    const char *path, char *const *arguments, char *const *environment, const int *kept, int count) {
    sigset_t none, all, before;
    sigemptyset(&none);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    long process = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (process < 0 && errno == EINVAL) process = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (process == 0) {
        for (int i = 0; i < count; i++) fcntl(kept[i], F_SETFD, 0);
        signal(SIGPIPE, SIG_DFL);
        sigprocmask(SIG_SETMASK, &none, 0);
        execve(path, arguments, environment);
        _exit(127);
    }
    int code = errno;
    pthread_sigmask(SIG_SETMASK, &before, 0);
    errno = code;
    return (pid_t)process;
}

#endif
