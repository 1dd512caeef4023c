#include "ops/guard.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

// Stands in a page of its own in front of the memory it describes, never protected.
typedef struct Mapping {
    struct Mapping *next, *previous;
    void *start;   // of the whole mapping
    int64_t size;  // of the whole mapping
    void *pages;   // what the guard protects
    int64_t page_bytes;
} Mapping;

struct VlGuard {
    pthread_mutex_t mutex;
    int64_t windows;
    Mapping *mappings;
};

VlStatus vl_guard_create(VlGuard **guard) {
    VL_TRY(VL_NEW(guard, 1));
    pthread_mutex_init(&(*guard)->mutex, NULL);
    return VL_OK;
}

void vl_guard_free(VlGuard *guard) {
    if (!guard) return;
    VL_ASSERT(!guard->mappings);
    pthread_mutex_destroy(&guard->mutex);
    vl_free(guard);
}

static void protect(const Mapping *mapping, int protection) {
    int failed = mprotect(mapping->pages, (size_t)mapping->page_bytes, protection);
    VL_ASSERT(!failed);
}

void vl_guard_open(VlGuard *guard) {
    if (!guard) return;
    pthread_mutex_lock(&guard->mutex);
    if (guard->windows++ == 0) {
        for (Mapping *m = guard->mappings; m; m = m->next) protect(m, PROT_READ | PROT_WRITE);
    }
    pthread_mutex_unlock(&guard->mutex);
}

void vl_guard_close(VlGuard *guard) {
    if (!guard) return;
    pthread_mutex_lock(&guard->mutex);
    VL_ASSERT(guard->windows > 0);
    if (--guard->windows == 0) {
        for (Mapping *m = guard->mappings; m; m = m->next) protect(m, PROT_NONE);
    }
    pthread_mutex_unlock(&guard->mutex);
}

static int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

static Mapping *mapping_of(void *memory, int64_t page) {
    return (Mapping *)(void *)((char *)memory - (intptr_t)memory % page - page);
}

VlStatus vl_guard_map(VlGuard *guard, int64_t bytes, void **memory) {
    int64_t page = sysconf(_SC_PAGESIZE);
    bool large = bytes >= 2 * HUGE_PAGE;
    if (bytes < 0 || bytes > INT64_MAX / 2) {
        return vl_error(VL_INVALID, "cannot allocate %lld bytes: no valid size", (long long)bytes);
    }
    int64_t page_bytes = round_up(bytes ? bytes : 1, page);
    // The description's page, the pages, with a guard the page that is never accessible, and room to align.
    int64_t size = page + page_bytes + (guard ? page : 0) + (large ? HUGE_PAGE : 0);
    char *start = vl_fault_hit() ? MAP_FAILED
                                 : mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) {
        return vl_error(VL_OUT_OF_MEMORY, "out of device memory: %lld bytes were asked for", (long long)bytes);
    }
    char *pages = start + page;
    if (large) {
        pages += round_up((intptr_t)pages, HUGE_PAGE) - (intptr_t)pages;
        madvise(pages, (size_t)page_bytes, MADV_HUGEPAGE);  // advice: a system without huge pages runs on, slower
    }
    Mapping *mapping = (Mapping *)(void *)(pages - page);
    *mapping = (Mapping){.start = start, .size = size, .pages = pages, .page_bytes = page_bytes};
    *memory = pages;
    if (guard) {
        *memory = pages + (page_bytes - round_up(bytes ? bytes : 1, ALIGNMENT));  // ends at the forbidden page
        int failed = mprotect(pages + page_bytes, (size_t)page, PROT_NONE);
        VL_ASSERT(!failed);
        pthread_mutex_lock(&guard->mutex);
        mapping->next = guard->mappings;
        if (mapping->next) mapping->next->previous = mapping;
        guard->mappings = mapping;
        if (!guard->windows) protect(mapping, PROT_NONE);
        pthread_mutex_unlock(&guard->mutex);
    }
    return VL_OK;
}

void vl_guard_unmap(VlGuard *guard, void *memory) {
    if (!memory) return;
    Mapping *mapping = mapping_of(memory, sysconf(_SC_PAGESIZE));
    if (guard) {
        pthread_mutex_lock(&guard->mutex);
        if (mapping->next) mapping->next->previous = mapping->previous;
        if (mapping->previous) {
            mapping->previous->next = mapping->next;
        } else {
            guard->mappings = mapping->next;
        }
        pthread_mutex_unlock(&guard->mutex);
    }
    int failed = munmap(mapping->start, (size_t)mapping->size);
    VL_ASSERT(!failed);
}
