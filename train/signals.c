#include "train/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

static atomic_int pending;

static void watched_signals(sigset_t *watched) {
    sigemptyset(watched);
    sigaddset(watched, SIGINT);
    sigaddset(watched, SIGTERM);
}

static void *watch(void *unused) {
    sigset_t watched;
    int number = 0;
    (void)unused;
    watched_signals(&watched);
    sigwait(&watched, &number);
    vl_signals_adopt(number);
    sigwait(&watched, &number);  // the second one, of either kind, has its usual effect
    pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
    kill(getpid(), number);
    return NULL;
}

VlStatus vl_signals_catch(void) {
    sigset_t watched;
    pthread_t thread;
    watched_signals(&watched);
    pthread_sigmask(SIG_BLOCK, &watched, NULL);
    if (pthread_create(&thread, NULL, watch, NULL) != 0) {
        return vl_error(VL_OUT_OF_MEMORY, "cannot start the thread that waits for signals");
    }
    pthread_detach(thread);
    return VL_OK;
}

int vl_signals_pending(void) { return atomic_load(&pending); }

void vl_signals_adopt(int number) {
    int none = 0;
    atomic_compare_exchange_strong(&pending, &none, number);
}
