// Counts what the program itself allocates, by interposition: calls from OpenSSL, which frees and takes a record's
// buffer with every record (SSL_MODE_RELEASE_BUFFERS), are told apart by their return address. SIGUSR1 writes
// both counts to the file that ALLOCATIONS names.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static unsigned long own, library;
// Where libcrypto and libssl lie: its allocator jumps to malloc, so that the caller may stand in either.
static struct {
    unsigned long low, high;
} libraries[2];

static void report(int number) {
    (void)number;
    const char *path = getenv("ALLOCATIONS");
    char text[64];
    int count = snprintf(text, sizeof text, "%lu %lu\n", own, library);
    int file = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
    if (file < 0) return;
    if (write(file, text, count) != count) _exit(1);
    close(file);
}

// Looked up once, because the look-up allocates.
__attribute__((constructor)) static void begin(void) {
    static const char *const known[] = {"CRYPTO_malloc", "SSL_new"};
    signal(SIGUSR1, report);
    for (int i = 0; i < 2; i++) {
        Dl_info info;
        void *symbol = dlsym(RTLD_DEFAULT, known[i]);
        if (!symbol || !dladdr(symbol, &info)) continue;
        libraries[i].low = (unsigned long)info.dli_fbase;
        // What Debian's libraries take at most.
        libraries[i].high = libraries[i].low + (i == 0 ? 0x600000 : 0xC0000);
    }
}

static int isOpenSSL(void *caller) {
    unsigned long at = (unsigned long)caller;
    return (at >= libraries[0].low && at < libraries[0].high) || (at >= libraries[1].low && at < libraries[1].high);
}

static void count(void *caller) {
    if (isOpenSSL(caller)) __atomic_add_fetch(&library, 1, __ATOMIC_RELAXED);
    else __atomic_add_fetch(&own, 1, __ATOMIC_RELAXED);
}

void *malloc(size_t size) {
    count(__builtin_return_address(0));
    return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
    count(__builtin_return_address(0));
    return __libc_calloc(n, size);
}
void *realloc(void *old, size_t size) {
    count(__builtin_return_address(0));
    return __libc_realloc(old, size);
}
