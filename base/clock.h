// Time for measuring: seconds since some fixed moment, never going back.
#ifndef VL_BASE_CLOCK_H
#define VL_BASE_CLOCK_H

double vl_seconds(void);

#endif
