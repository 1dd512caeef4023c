// Instructions of a whole warp, by the layouts of fragments in the PTX manual (mma.m16n8k16 for .bf16, ldmatrix).
//
// A register holds two neighbours of a row (of a column for b), the first in the lower half. With group = lane / 4 and
// pair = lane % 4 * 2:
//   a (16 x 16): register r holds row group + 8 (r % 2), columns pair + 8 (r / 2) and the next;
//   b (16 x 8):  register r holds column group, rows pair + 8 r and the next;
//   c (16 x 8):  element e is row group + 8 (e / 2), column pair + e % 2;
//   ldmatrix: lane i names row i % 8 of matrix i / 8; register m gets row group of matrix m, columns pair and the next;
//   transposed: column group, rows pair and the next.
#include "ptx_host.h"

enum { LANES = EXECUTE_LANES, M = 16, N = 8, K = 16, ROWS = 8 };

static float bf16_at(uint32_t word, int half) { return __uint_as_float(word >> 16 * half << 16); }

#ifdef __x86_64__
__attribute__((target_clones("arch=haswell", "default")))
#endif
void host_mma_bf16(void *const arguments[LANES], uint32_t) {
    float a[M][K], b[K][N], c[M][N];
    for (int lane = 0; lane < LANES; lane++) {
        const HostMma *of = (const HostMma *)arguments[lane];
        int group = lane / 4, pair = lane % 4 * 2;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++) a[group + 8 * (r % 2)][pair + 8 * (r / 2) + half] = bf16_at(of->a[r], half);
            for (int r = 0; r < 2; r++) b[pair + 8 * r + half][group] = bf16_at(of->b[r], half);
        }
        for (int e = 0; e < 4; e++) c[group + 8 * (e / 2)][pair + e % 2] = of->c[e];
    }
    for (int row = 0; row < M; row++) {
        for (int k = 0; k < K; k++) {
            for (int column = 0; column < N; column++) c[row][column] += a[row][k] * b[k][column];
        }
    }
    for (int lane = 0; lane < LANES; lane++) {
        int group = lane / 4, pair = lane % 4 * 2;
        for (int e = 0; e < 4; e++) ((HostMma *)arguments[lane])->c[e] = c[group + 8 * (e / 2)][pair + e % 2];
    }
}

static void load_matrices(void *const arguments[LANES], bool transposed) {
    uint16_t matrix[4][ROWS][ROWS];
    for (int lane = 0; lane < LANES; lane++) {
        const void *row = ((const HostLdmatrix *)arguments[lane])->row;
        execute_check_shared("ldmatrix", row, sizeof matrix[0][0], sizeof matrix[0][0]);
        memcpy(matrix[lane / ROWS][lane % ROWS], row, sizeof matrix[0][0]);
    }
    for (int lane = 0; lane < LANES; lane++) {
        int group = lane / 4, pair = lane % 4 * 2;
        for (int m = 0; m < 4; m++) {
            uint32_t low = transposed ? matrix[m][pair][group] : matrix[m][group][pair];
            uint32_t high = transposed ? matrix[m][pair + 1][group] : matrix[m][group][pair + 1];
            ((HostLdmatrix *)arguments[lane])->to[m] = low | high << 16;
        }
    }
}

void host_ldmatrix_x4(void *const arguments[LANES], uint32_t) { load_matrices(arguments, false); }

void host_ldmatrix_x4_transposed(void *const arguments[LANES], uint32_t) { load_matrices(arguments, true); }
