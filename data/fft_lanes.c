#include "data/fft_lanes.h"

#include <math.h>

#include "base/memory.h"

#if defined(__x86_64__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif
#define INLINED static inline __attribute__((always_inline))

// The largest r that divides `points`, is taken for speed first and needs no larger prime.
static int next_radix(int64_t points) {
    if (points % 4 == 0) return 4;
    if (points % 2 == 0) return 2;
    for (int r = 3; r <= VL_FFT_LARGEST_RADIX; r += 2) {
        if (points % r == 0) return r;
    }
    return 0;
}

int64_t vl_fft_lanes_rest(int64_t points) {
    for (int radix; points > 1 && (radix = next_radix(points)) > 0;) points /= radix;
    return points;
}

VlStatus vl_fft_lanes_create(VlFftLanes *fft, int64_t points) {
    *fft = (VlFftLanes){.points = points};
    if (points < 1 || vl_fft_lanes_rest(points) != 1) {
        return vl_error(VL_INVALID, "a transform of %lld points needs primes above %d", (long long)points,
                        VL_FFT_LARGEST_RADIX);
    }
    for (int64_t left = points; left > 1; left /= fft->radix[fft->radices++]) {
        fft->radix[fft->radices] = next_radix(left);
    }
    VL_TRY(VL_NEW(&fft->roots, points));
    for (int64_t k = 0; k < points; k++) {
        double angle = 2 * M_PI * (double)k / (double)points;
        fft->roots[k][0] = cos(angle);
        fft->roots[k][1] = -sin(angle);
    }
    return VL_OK;
}

void vl_fft_lanes_clear(VlFftLanes *fft) {
    vl_free(fft->roots);
    *fft = (VlFftLanes){0};
}

// One pass splits transforms of length r * rest, of which there are `stride`, into r times as many of length `rest`
// (decimation in frequency; Stockham's order, which needs no reversal of digits):
// y[q + stride (r p + k)] = w^(p k) sum over j of x[q + stride (p + rest j)] exp(-2 pi i j k / r), w of length r *
// rest.
typedef struct Pass {
    int64_t rest, stride;
    const double (*roots)[2];  // of the whole transform: w^(p k) = roots[stride p k]
} Pass;

INLINED void store_turned(VlLanesComplex *y, const double *root, const VlLanes *re, const VlLanes *im) {
    VlLanes real = *re * root[0] - *im * root[1];
    y->im = *re * root[1] + *im * root[0];
    y->re = real;
}

INLINED void pass_2(const Pass *pass, const VlLanesComplex *x, VlLanesComplex *y) {
    int64_t s = pass->stride, half = pass->rest * s;
    for (int64_t p = 0; p < pass->rest; p++) {
        const double *root = pass->roots[s * p];
        for (int64_t q = 0; q < s; q++) {
            const VlLanesComplex *a = x + q + s * p, *b = a + half;
            VlLanesComplex *out = y + q + 2 * s * p;
            VlLanes re = a->re - b->re, im = a->im - b->im;
            out[0].re = a->re + b->re;
            out[0].im = a->im + b->im;
            store_turned(out + s, root, &re, &im);
        }
    }
}

INLINED void pass_4(const Pass *pass, const VlLanesComplex *x, VlLanesComplex *y) {
    int64_t s = pass->stride, quarter = pass->rest * s;
    for (int64_t p = 0; p < pass->rest; p++) {
        const double *root1 = pass->roots[s * p], *root2 = pass->roots[2 * s * p], *root3 = pass->roots[3 * s * p];
        for (int64_t q = 0; q < s; q++) {
            const VlLanesComplex *a = x + q + s * p, *b = a + quarter, *c = b + quarter, *d = c + quarter;
            VlLanesComplex *out = y + q + 4 * s * p;
            VlLanes even_re = a->re + c->re, even_im = a->im + c->im, odd_re = b->re + d->re, odd_im = b->im + d->im;
            VlLanes e_re = a->re - c->re, e_im = a->im - c->im, o_re = b->re - d->re, o_im = b->im - d->im;
            VlLanes re1 = e_re + o_im, im1 = e_im - o_re, re3 = e_re - o_im, im3 = e_im + o_re;
            VlLanes re2 = even_re - odd_re, im2 = even_im - odd_im;
            out[0].re = even_re + odd_re;
            out[0].im = even_im + odd_im;
            store_turned(out + s, root1, &re1, &im1);
            store_turned(out + 2 * s, root2, &re2, &im2);
            store_turned(out + 3 * s, root3, &re3, &im3);
        }
    }
}

// Any odd r: x[j] and x[r - j] meet the same cosines and opposite sines, so sums and differences of such pairs do.
INLINED void pass_odd(const Pass *pass, int r, const VlLanesComplex *x, VlLanesComplex *y) {
    VlLanesComplex sum[VL_FFT_LARGEST_RADIX / 2], difference[VL_FFT_LARGEST_RADIX / 2];
    int64_t s = pass->stride, step = pass->rest * s;
    int pairs = r / 2;
    for (int64_t p = 0; p < pass->rest; p++) {
        for (int64_t q = 0; q < s; q++) {
            const VlLanesComplex *in = x + q + s * p;
            VlLanesComplex *out = y + q + r * s * p;
            VlLanes total_re = in->re, total_im = in->im;
            for (int j = 0; j < pairs; j++) {
                const VlLanesComplex *a = in + step * (j + 1), *b = in + step * (r - 1 - j);
                sum[j].re = a->re + b->re;
                sum[j].im = a->im + b->im;
                difference[j].re = a->re - b->re;
                difference[j].im = a->im - b->im;
                total_re += sum[j].re;
                total_im += sum[j].im;
            }
            out->re = total_re;
            out->im = total_im;
            for (int k = 1; k <= pairs; k++) {
                VlLanes even_re = in->re, even_im = in->im, odd_re = {0}, odd_im = {0};
                for (int j = 0; j < pairs; j++) {
                    const double *root = pass->roots[step * ((j + 1) * k % r)];
                    even_re += sum[j].re * root[0];
                    even_im += sum[j].im * root[0];
                    odd_re -= difference[j].im * root[1];
                    odd_im += difference[j].re * root[1];
                }
                VlLanes low_re = even_re + odd_re, low_im = even_im + odd_im;
                VlLanes high_re = even_re - odd_re, high_im = even_im - odd_im;
                store_turned(out + s * k, pass->roots[s * p * k], &low_re, &low_im);
                store_turned(out + s * (r - k), pass->roots[s * p * (r - k)], &high_re, &high_im);
            }
        }
    }
}

VECTORISED static void run_pass(const Pass *pass, int radix, const VlLanesComplex *x, VlLanesComplex *y) {
    switch (radix) {
    case 2: pass_2(pass, x, y); break;
    case 3: pass_odd(pass, 3, x, y); break;
    case 4: pass_4(pass, x, y); break;
    case 5: pass_odd(pass, 5, x, y); break;
    case 7: pass_odd(pass, 7, x, y); break;
    default: pass_odd(pass, radix, x, y); break;
    }
}

VlLanesComplex *vl_fft_lanes_run(const VlFftLanes *fft, VlLanesComplex *x, VlLanesComplex *work) {
    Pass pass = {.rest = fft->points, .stride = 1, .roots = (const double(*)[2])fft->roots};
    for (int i = 0; i < fft->radices; i++) {
        pass.rest /= fft->radix[i];
        run_pass(&pass, fft->radix[i], x, work);
        pass.stride *= fft->radix[i];
        VlLanesComplex *result = work;
        work = x;
        x = result;
    }
    return x;
}
