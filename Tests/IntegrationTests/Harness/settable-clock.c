// Loaded before a program's libraries: sets a clock of its apart from the machine's by the microseconds that stand
// in the file CLOCK_OFFSET_FILE, eight bytes in the machine's order, at any time. CLOCK_OFFSET_OF has the numbers of
// its clocks, one digit each; without it, it is the wall clock.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;
static const char *clocks;

__attribute__((constructor)) static void find(void) {
    const char *path = getenv("CLOCK_OFFSET_FILE");
    const char *numbers = getenv("CLOCK_OFFSET_OF");
    // Redis writes its title over its environment.
    clocks = strdup(numbers ? numbers : "0");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) offset = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result || clock < 0 || clock > 9 || !offset || !strchr(clocks, '0' + clock)) return result;
    long long microseconds = time->tv_sec * 1000000LL + time->tv_nsec / 1000 + *offset;
    time->tv_sec = microseconds / 1000000;
    time->tv_nsec = microseconds % 1000000 * 1000 + time->tv_nsec % 1000;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}
