// splice against its definition. It only moves rows, so everything is equal bit by bit.
#include "tests/ops/output.h"

typedef struct Problem {
    int64_t text_rows, media_rows, columns;
    int64_t *source;
    double *text, *media, *dy;
    double *y, *dtext, *dmedia;  // by reference()
} Problem;

static int64_t rows_of(const Problem *p) { return p->text_rows + p->media_rows; }

static void reference(Problem *p) {
    for (int64_t i = 0; i < rows_of(p) * p->columns; i++) {
        int64_t source = p->source[i / p->columns], c = i % p->columns;
        double *from = source >= 0 ? p->text + source * p->columns + c : p->media + (-1 - source) * p->columns + c;
        double *to = source >= 0 ? p->dtext + source * p->columns + c : p->dmedia + (-1 - source) * p->columns + c;
        p->y[i] = *from;
        *to = p->dy[i];
    }
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p);
    return check_dot(p->y, p->dy, rows_of(p) * p->columns);
}

// shape: rows of text, rows of media, C. The order is a random permutation.
static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    int64_t text = shape[0] * shape[2], media = shape[1] * shape[2], rows = shape[0] + shape[1];
    Problem p = {.text_rows = shape[0],
                 .media_rows = shape[1],
                 .columns = shape[2],
                 .source = check_random_indices(check, rows, 1),
                 .text = check_random(check, text, 1.0, dtype),
                 .media = check_random(check, media, 1.0, dtype),
                 .dy = check_random(check, text + media, 1.0, dtype),
                 .y = check_zeros(check, text + media),
                 .dtext = check_zeros(check, text),
                 .dmedia = check_zeros(check, media)};
    for (int64_t t = 0; t < rows; t++) p.source[t] = vl_permute(t, rows, check->seed) - p.media_rows;
    return p;
}

enum { Y, DTEXT, DMEDIA, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 49, threads);
    VlContext *context = check->context;
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor text = check_upload(check, p.text, dtype, p.text_rows, p.columns);
    VlTensor media = check_upload(check, p.media, dtype, p.media_rows, p.columns);
    VlTensor dy = check_upload(check, p.dy, dtype, rows_of(&p), p.columns);
    VlTensor source = check_upload_i64(check, p.source, rows_of(&p));
    run->out[Y] = output_make(check, dy, VL_WRITE);
    run->out[DTEXT] = output_make(check, text, VL_WRITE);
    run->out[DMEDIA] = output_make(check, media, VL_WRITE);
    VlTensor dtext = run->out[DTEXT].tensor, dmedia = run->out[DMEDIA].tensor;
    // Without rows a side may be the empty view.
    check_ok(check, vl_splice_forward(context, run->out[Y].tensor, p.text_rows ? text : VL_EMPTY,
                                      p.media_rows ? media : VL_EMPTY, source));
    check_ok(check, vl_splice_backward(context, dtext, VL_EMPTY, dy, source));
    check_ok(check, vl_splice_backward(context, VL_EMPTY, dmedia, dy, source));
    check_ok(check, vl_splice_backward(context, VL_EMPTY, VL_EMPTY, dy, source));
    VlTensor both_text = output_make(check, text, VL_WRITE).tensor,
             both_media = output_make(check, media, VL_WRITE).tensor;
    check_ok(check, vl_splice_backward(context, both_text, both_media, dy, source));
    check_same_bits(check, "dtext of both", both_text, check, dtext);
    check_same_bits(check, "dmedia of both", both_media, check, dmedia);
}

static void verify(const int64_t shape[3], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    reference(&run.problem);
    check_tensor(&run.check, "y", run.out[Y].tensor, run.problem.y, 0);
    check_tensor(&run.check, "dtext", run.out[DTEXT].tensor, run.problem.dtext, 0);
    check_tensor(&run.check, "dmedia", run.out[DMEDIA].tensor, run.problem.dmedia, 0);
    check_end(&run.check);
}

static void test_splice_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {17, 5, 7}, {65, 130, 33}, {9, 3, 2500},
                                        {0, 3, 5}, {7, 0, 5},  {0, 0, 5},     {30, 20, 264}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 50, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p);
    double *dtext = check_copy(&check, p.dtext, 119), *dmedia = check_copy(&check, p.dmedia, 35);
    check_differences(&check, "dtext", p.text, 119, 119, loss, &p, dtext);
    check_differences(&check, "dmedia", p.media, 35, 35, loss, &p, dmedia);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[3] = {233, 165, 103};
    Run one, two;
    run_begin(&one, shape, VL_F32, 1);
    run_begin(&two, shape, VL_F32, 2);
    outputs_same(&one.check, one.out, &two.check, two.out, OUTPUTS);
    check_end(&one.check);
    check_end(&two.check);
}

static void test_refusals(void **state) {
    (void)state;
    static const int64_t good[] = {0, -1, 1, -2}, above[] = {0, -1, 2, -2}, below[] = {0, -1, 1, -3};
    static const int64_t twice[] = {0, -1, 0, -2}, media_twice[] = {0, -2, 1, -2};
    Check check;
    check_begin(&check, 51, 1);
    VlContext *c = check.context;
    VlTensor y = check_device(&check, VL_F32, 4, 6), text = check_device(&check, VL_F32, 2, 6);
    VlTensor media = check_device(&check, VL_F32, 2, 6), half = check_device(&check, VL_BF16, 2, 6);
    VlTensor narrow = check_device(&check, VL_F32, 2, 5), long_text = check_device(&check, VL_F32, 5, 6);
    VlTensor source = check_upload_i64(&check, good, 4), e = VL_EMPTY;
    check_refused(vl_splice_forward(c, y, text, media, check_upload_i64(&check, above, 4)), VL_INVALID,
                  "splice_forward: source[2] is 2, it must be in [-2, 2)");
    check_refused(vl_splice_forward(c, y, text, media, check_upload_i64(&check, below, 4)), VL_INVALID,
                  "source[3] is -3");
    check_refused(vl_splice_forward(c, y, text, media, check_upload_i64(&check, twice, 4)), VL_INVALID,
                  "source[2] is 0, which stands at an earlier place too");
    check_refused(vl_splice_forward(c, y, text, media, check_upload_i64(&check, media_twice, 4)), VL_INVALID,
                  "source[3] is -2, which stands at an earlier place too");
    check_refused(vl_splice_forward(c, y, text, e, source), VL_INVALID,
                  "y is [4,6] f32, it must have the rows of text");
    check_refused(vl_splice_forward(c, y, narrow, media, source), VL_INVALID,
                  "text is [2,5] f32, it must be [any,6] f32");
    check_refused(vl_splice_forward(c, y, text, half, source), VL_INVALID, "media is [2,6] bf16");
    check_refused(vl_splice_forward(c, y, vl_rows(y, 0, 2), media, source), VL_INVALID, "overlap");
    check_refused(vl_splice_forward(c, y, text, media, y), VL_INVALID, "source is [4,6] f32");
    check_refused(vl_splice_backward(c, text, media, y, check_upload_i64(&check, twice, 4)), VL_INVALID,
                  "splice_backward: source[2] is 0, which stands at an earlier place too");
    check_refused(vl_splice_backward(c, text, e, y, check_upload_i64(&check, above, 4)), VL_INVALID, "source[2] is 2");
    check_refused(vl_splice_backward(c, e, media, y, check_upload_i64(&check, below, 4)), VL_INVALID,
                  "source[3] is -3");
    check_refused(vl_splice_backward(c, long_text, e, y, source), VL_INVALID,
                  "dtext is [5,6] f32, it has more rows than dy");
    check_refused(vl_splice_backward(c, long_text, media, y, source), VL_INVALID,
                  "dy is [4,6] f32, it must have the rows");
    check_refused(vl_splice_backward(c, text, half, y, source), VL_INVALID, "dmedia is [2,6] bf16");
    check_end(&check);
}

// Indices that the host does not know are checked where they are used.
static void test_device_indices(void **state) {
    (void)state;
    static const int64_t above[] = {0, -1, 2, -2}, below[] = {0, -1, 1, -3};
    Check check;
    check_begin(&check, 69, 1);
    VlContext *c = check.context;
    VlTensor y = check_device(&check, VL_F32, 4, 6), text = check_device(&check, VL_F32, 2, 6);
    VlTensor media = check_device(&check, VL_F32, 2, 6), source = check_device(&check, VL_I64, 4);
    check_ok(&check, vl_cast(c, source, check_upload_i64(&check, above, 4)));
    const char *error =
        c->device == VL_DEVICE_CUDA ? "element 2 of an index tensor is 2, it must be in [0, 2)" : "source[2] is 2";
    check_refused(vl_splice_forward(c, y, text, media, source), VL_INVALID, error);
    check_refused(vl_splice_backward(c, text, VL_EMPTY, y, source), VL_INVALID, error);
    check_ok(&check, vl_cast(c, source, check_upload_i64(&check, below, 4)));
    error = c->device == VL_DEVICE_CUDA ? "element 3 of an index tensor is 2, it must be in [0, 2)" : "source[3] is -3";
    check_refused(vl_splice_forward(c, y, text, media, source), VL_INVALID, error);
    check_refused(vl_splice_backward(c, text, media, y, source), VL_INVALID, error);
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splice_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_device_indices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
