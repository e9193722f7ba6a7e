/* Puts each tensor's memory right before a page that nobody may touch, so that reaching past it ends the process.
 *
 * Preloaded into the survey of hostile arguments; nothing else uses it. What lies around a tensor on its own
 * pages is filled with a byte of choice: reading it shows in results, which differ by the byte, and writing to
 * it is noticed when the tensor is freed. Memory is never handed out twice.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096UL
#define ARENA (1UL << 36)
#define LARGEST (1UL << 22)

extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *address);

static char *arena, *next;
static size_t *sizes; /* by page of the arena */
static int enabled;
static unsigned char filling;

static void *reserve(size_t size, int access) {
    void *found = mmap(NULL, size, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return found == MAP_FAILED ? NULL : found;
}

void fence(int on, int byte) {
    if (arena == NULL) {
        arena = next = reserve(ARENA, PROT_NONE);
        sizes = reserve(ARENA / PAGE * sizeof(size_t), PROT_READ | PROT_WRITE);
    }
    filling = (unsigned char)byte;
    enabled = on && arena != NULL && sizes != NULL;
}

static int is_fenced(const void *address) {
    return arena != NULL && (const char *)address >= arena && (const char *)address < arena + ARENA;
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    size_t body = (size + PAGE - 1) / PAGE * PAGE;
    if (enabled && size > 0 && size <= LARGEST && alignment <= PAGE) {
        char *start = __atomic_fetch_add(&next, body + PAGE, __ATOMIC_RELAXED);
        if (start + body + PAGE < arena + ARENA && mprotect(start, body, PROT_READ | PROT_WRITE) == 0) {
            char *address = start + (body - size) / alignment * alignment;
            memset(start, filling, body);
            sizes[(start - arena) / PAGE] = size;
            *out = address;
            return 0;
        }
    }
    *out = __libc_memalign(alignment, size);
    return *out == NULL ? ENOMEM : 0;
}

void free(void *address) {
    if (!is_fenced(address)) {
        __libc_free(address);
        return;
    }
    char *start = arena + ((char *)address - arena) / PAGE * PAGE;
    size_t size = sizes[(start - arena) / PAGE], body = (size + PAGE - 1) / PAGE * PAGE;
    for (char *byte = start; byte < start + body; byte++)
        if ((byte < (char *)address || byte >= (char *)address + size) && *(unsigned char *)byte != filling) {
            fprintf(stderr, "memory beside a tensor was written to\n");
            abort();
        }
    mprotect(start, body, PROT_NONE);
    madvise(start, body, MADV_DONTNEED);
}
