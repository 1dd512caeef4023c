#include "train/signals.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t pending = 0;

static void remember(int number) {
    pending = number;
    signal(number, SIG_DFL);
}

void vl_signals_catch(void) {
    struct sigaction action = {.sa_handler = remember, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int vl_signals_pending(void) { return pending; }

void vl_signals_adopt(int number) {
    if (!pending) pending = number;
}
