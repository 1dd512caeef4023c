// vit_embedding against its formula in f64.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t images, extra, patch_rows, columns;  // extra: 1 with a class token
    double *patches, *class_token, *position, *dy;
    double *y, *dpatches, *dclass_token, *dposition;  // by reference()
} Problem;

static int64_t rows_of(const Problem *p) { return p->extra + p->patch_rows; }

static void reference(Problem *p, VlDtype type) {
    int64_t rows = rows_of(p), columns = p->columns;
    for (int64_t c = 0; c < columns; c++) p->dclass_token[c] = 0;
    for (int64_t i = 0; i < rows * columns; i++) p->dposition[i] = 0;
    for (int64_t i = 0; i < p->images * rows * columns; i++) {
        int64_t c = i % columns, row = i / columns % rows, n = i / (columns * rows);
        int64_t at = row * columns + c, from = (n * p->patch_rows + row - p->extra) * columns + c;
        bool is_class = row < p->extra;
        p->y[i] = check_rounded((is_class ? p->class_token[c] : p->patches[from]) + p->position[at], type);
        p->dposition[at] = check_rounded(p->dposition[at] + p->dy[i], type);
        if (is_class) {
            p->dclass_token[c] = check_rounded(p->dclass_token[c] + p->dy[i], type);
        } else {
            p->dpatches[from] = p->dy[i];
        }
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->images * rows_of(p) * p->columns);
}

// shape: N, E, P, C.
static Problem problem_make(Check *check, const int64_t shape[4], VlDtype dtype) {
    int64_t rows = shape[1] + shape[2], count = shape[0] * rows * shape[3], patches = shape[0] * shape[2] * shape[3];
    return (Problem){.images = shape[0],
                     .extra = shape[1],
                     .patch_rows = shape[2],
                     .columns = shape[3],
                     .patches = check_random(check, patches, 1.0, dtype),
                     .class_token = check_random(check, shape[3], 1.0, dtype),
                     .position = check_random(check, rows * shape[3], 1.0, dtype),
                     .dy = check_random(check, count, 1.0, dtype),
                     .y = check_zeros(check, count),
                     .dpatches = check_zeros(check, patches),
                     .dclass_token = check_zeros(check, shape[3]),
                     .dposition = check_zeros(check, rows * shape[3])};
}

enum { Y, DPATCHES, DPOSITION, DCLASS_TOKEN, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[4], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 37, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlContext *context = check->context;
    int64_t rows = rows_of(&p);
    VlTensor patches = check_upload(check, p.patches, dtype, p.images, p.patch_rows, p.columns);
    VlTensor class_token = p.extra ? check_upload(check, p.class_token, dtype, p.columns) : VL_EMPTY;
    VlTensor position = check_upload(check, p.position, dtype, rows, p.columns);
    VlTensor dy = check_upload(check, p.dy, dtype, p.images, rows, p.columns);
    run->out[Y] = output_make(check, dy, VL_WRITE);
    run->out[DPATCHES] = output_make(check, patches, VL_WRITE);
    run->out[DPOSITION] = output_make(check, vl_tensor(NULL, VL_F32, rows, p.columns), VL_ADD);
    run->out[DCLASS_TOKEN] = output_make(check, vl_tensor(NULL, VL_F32, p.columns), VL_ADD);
    VlTensor dpatches = run->out[DPATCHES].tensor, dposition = run->out[DPOSITION].tensor;
    VlTensor dclass_token = p.extra ? run->out[DCLASS_TOKEN].tensor : VL_EMPTY;
    check_ok(check, vl_vit_embedding_forward(context, run->out[Y].tensor, patches, class_token, position));
    // Each gradient alone: the others are not wanted.
    check_ok(check, vl_vit_embedding_backward(context, dpatches, VL_EMPTY, VL_EMPTY, dy));
    check_ok(check, vl_vit_embedding_backward(context, VL_EMPTY, dclass_token, VL_EMPTY, dy));
    check_ok(check, vl_vit_embedding_backward(context, VL_EMPTY, VL_EMPTY, dposition, dy));
    // All at once give the same.
    VlTensor all_patches = output_make(check, patches, VL_WRITE).tensor;
    VlTensor all_position = check_upload(check, run->out[DPOSITION].start, VL_F32, rows, p.columns);
    VlTensor all_class = check_upload(check, run->out[DCLASS_TOKEN].start, VL_F32, p.columns);
    check_ok(check, vl_vit_embedding_backward(context, all_patches, p.extra ? all_class : VL_EMPTY, all_position, dy));
    check_same_bits(check, "dpatches of all", all_patches, check, dpatches);
    check_same_bits(check, "dposition of all", all_position, check, dposition);
    check_same_bits(check, "dclass_token of all", all_class, check, run->out[DCLASS_TOKEN].tensor);
}

static void verify(const int64_t shape[4], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.patches = exact.patches, naive.class_token = exact.class_token, naive.position = exact.position;
    naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    check_tensor(check, "dpatches", run.out[DPATCHES].tensor, exact.dpatches, 0);
    output_check(check, "dposition", run.out[DPOSITION], exact.dposition, naive.dposition);
    output_check(check, "dclass_token", run.out[DCLASS_TOKEN], exact.dclass_token, naive.dclass_token);
    check_end(check);
}

static void test_vit_embedding_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{1, 1, 1, 1},    {2, 1, 3, 7}, {3, 0, 5, 65}, {8, 1, 17, 33}, {1, 0, 1, 1},
                                        {2, 1, 2, 1030}, {0, 1, 3, 4}, {2, 1, 0, 3},  {3, 1, 4, 264}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 38, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    double *dpatches = check_copy(&check, p.dpatches, 42), *dposition = check_copy(&check, p.dposition, 28);
    double *dclass_token = check_copy(&check, p.dclass_token, 7);
    check_differences(&check, "dpatches", p.patches, 42, 42, loss, &p, dpatches);
    check_differences(&check, "dposition", p.position, 28, 28, loss, &p, dposition);
    check_differences(&check, "dclass_token", p.class_token, 7, 7, loss, &p, dclass_token);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[4] = {5, 1, 66, 65};
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, two;
        run_begin(&one, shape, dtypes[i], 1);
        run_begin(&two, shape, dtypes[i], 2);
        outputs_same(&one.check, one.out, &two.check, two.out, OUTPUTS);
        check_end(&one.check);
        check_end(&two.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 39, 1);
    VlContext *c = check.context;
    VlTensor y = check_device(&check, VL_F32, 2, 5, 3), patches = check_device(&check, VL_F32, 2, 4, 3);
    VlTensor token = check_device(&check, VL_F32, 3), position = check_device(&check, VL_F32, 5, 3);
    VlTensor short_position = check_device(&check, VL_F32, 4, 3), half = check_device(&check, VL_BF16, 3);
    VlTensor none = check_device(&check, VL_F32, 2, 0, 3), e = VL_EMPTY;
    check_refused(vl_vit_embedding_forward(c, patches, patches, token, position), VL_INVALID,
                  "vit_embedding_forward: y is [2,4,3] f32, it must be [2,5,3] f32");
    check_refused(vl_vit_embedding_forward(c, y, patches, e, position), VL_INVALID, "it must be [2,4,3] f32");
    check_refused(vl_vit_embedding_forward(c, y, patches, half, position), VL_INVALID, "class_token is [3] bf16");
    check_refused(vl_vit_embedding_forward(c, y, patches, token, short_position), VL_INVALID, "position is [4,3] f32");
    check_refused(vl_vit_embedding_forward(c, y, token, token, position), VL_INVALID, "patches is [3] f32");
    check_refused(vl_vit_embedding_backward(c, none, token, position, y), VL_INVALID,
                  "vit_embedding_backward: dpatches is [2,0,3] f32, it must be [2,4,3] f32");
    check_refused(vl_vit_embedding_backward(c, y, token, position, patches), VL_INVALID, "dpatches is [2,5,3] f32");
    check_refused(vl_vit_embedding_backward(c, patches, half, position, y), VL_INVALID, "dclass_token is [3] bf16");
    check_refused(vl_vit_embedding_backward(c, patches, token, short_position, y), VL_INVALID,
                  "dposition is [4,3] f32");
    check_refused(vl_vit_embedding_backward(c, e, token, e, none), VL_INVALID, "a row of the class token");
    check_refused(vl_vit_embedding_backward(c, patches, e, e, none), VL_INVALID, "dpatches is [2,4,3] f32");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vit_embedding_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
