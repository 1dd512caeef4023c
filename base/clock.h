// Time for measuring: seconds since some fixed moment, never going back.
#ifndef VL_BASE_CLOCK_H
#define VL_BASE_CLOCK_H

#include <pthread.h>

double vl_seconds(void);

// Waits for `condition` as pthread_cond_wait does, but for a second at most: glibc before 2.41 can lose a wake-up (its
// bug 25847), so whoever waits looks again. For loops that check what they wait for.
void vl_wait_for_change(pthread_cond_t *condition, pthread_mutex_t *lock);

#endif
