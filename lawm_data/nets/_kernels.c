/* The elementwise work between two matrix products, in one pass over the rows, for CPUs.

   See `elementwise`, which has the same maths in PyTorch, and `kernels`, which calls these. Arrays are float32 and lie
   at the addresses that Python passes: nothing here knows a tensor. They are dense but where an argument is a stride.
   The compiler turns the loops over features into vectors; sums may be taken in any order.

   Shapes: N models, B rows of a batch, F features, D deterministic state. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* compiled for each width of vectors; the processor's is taken when the library is loaded */
#if !defined(__x86_64__) || !defined(__gnu_linux__) || !defined(__GNUC__)
#define VECTORS
#elif __GNUC__ >= 12 /* Clang says 4 */
#define VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORS __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#define INLINE static inline __attribute__((always_inline))

static const float EPSILON = 1e-5f; /* of LayerNorm */

/* e^x, relative error 2e-7; x beyond +-87 counts as that, NaN stays */
INLINE float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = (x - n * 0.693145752f) - n * 1.42860677e-6f; /* ln 2 in two parts: n times the first is exact */
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23; /* 2^n */
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* near 0, where the other form loses digits, the continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))) */
INLINE float tangent(float x)
{
    float s = x * x;
    float near = x * ((s + 105.0f) * s + 945.0f) / ((15.0f * s + 420.0f) * s + 945.0f);
    float far = 1.0f - 2.0f / (1.0f + exponential(2.0f * x));
    return s < 0.36f ? near : far;
}

/* normed = (product + bias - mean) / deviation of a row; returns 1 / deviation */
INLINE float normalize(Py_ssize_t F, const float *product, const float *bias, float *normed)
{
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (Py_ssize_t i = 0; i < F; i++)
    {
        normed[i] = product[i] + bias[i];
        sum += normed[i];
    }
    float mean = sum / F;
#pragma omp simd reduction(+ : squares)
    for (Py_ssize_t i = 0; i < F; i++)
    {
        normed[i] -= mean;
        squares += normed[i] * normed[i];
    }
    float rstd = 1.0f / sqrtf(squares / F + EPSILON);
#pragma omp simd
    for (Py_ssize_t i = 0; i < F; i++)
        normed[i] *= rstd;
    return rstd;
}

/* `into` holds the gradient of LayerNorm's result and gets that of what was normed; the parameters' are added up */
INLINE void normalize_backward(
    Py_ssize_t F, float *into, const float *normed, float rstd, const float *scale, float *restrict bias,
    float *restrict of_scale, float *restrict of_shift)
{
    float sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
    for (Py_ssize_t i = 0; i < F; i++)
    {
        float gradient = into[i];
        of_shift[i] += gradient;
        of_scale[i] += gradient * normed[i];
        into[i] = gradient *= scale[i];
        sum += gradient;
        along += gradient * normed[i];
    }
    sum /= F, along /= F;
#pragma omp simd
    for (Py_ssize_t i = 0; i < F; i++)
    {
        into[i] = rstd * (into[i] - sum - normed[i] * along);
        bias[i] += into[i];
    }
}

/* after = swish(LayerNorm(product + bias)), in the product's place if wanted; keeps normed [N, B, F] and rstd [N, B].
   bias [N, 1 or B, F], by its strides */
VECTORS static void activated(
    Py_ssize_t N, Py_ssize_t B, Py_ssize_t F, const float *product, const float *bias, Py_ssize_t bias_model,
    Py_ssize_t bias_row, const float *scale, const float *shift, float *normed, float *rstd, float *after)
{
    for (Py_ssize_t n = 0; n < N; n++, scale += F, shift += F)
        for (Py_ssize_t b = 0; b < B; b++, product += F, normed += F, after += F)
        {
            *rstd++ = normalize(F, product, bias + n * bias_model + b * bias_row, normed);
#pragma omp simd
            for (Py_ssize_t i = 0; i < F; i++)
            {
                float y = normed[i] * scale[i] + shift[i];
                after[i] = y * sigmoid(y);
            }
        }
}

/* into: the gradient of product + bias, each model's `into_model` behind the former one's; those of bias, scale and
   shift are added to sums [N, 3, F] */
VECTORS static void activated_backward(
    Py_ssize_t N, Py_ssize_t B, Py_ssize_t F, const float *gradient, const float *normed, const float *rstd,
    const float *scale, const float *shift, float *into, Py_ssize_t into_model, float *sums)
{
    for (Py_ssize_t n = 0; n < N; n++, scale += F, shift += F, into += into_model, sums += 3 * F)
        for (Py_ssize_t b = 0; b < B; b++, gradient += F, normed += F)
        {
            float *row = into + b * F;
#pragma omp simd
            for (Py_ssize_t i = 0; i < F; i++)
            {
                float y = normed[i] * scale[i] + shift[i], s = sigmoid(y);
                row[i] = gradient[i] * s * (1.0f + y * (1.0f - s));
            }
            normalize_backward(F, row, normed, *rstd++, scale, sums, sums + F, sums + 2 * F);
        }
}

/* after: the state [N, B, D] that follows h; the update gate is biased by -1, to keep h. Keeps normed [N, B, 3 D], rstd
   and in each row the gates: reset, proposal, update and candidate [N, B, 4 D] */
VECTORS static void gated(
    Py_ssize_t N, Py_ssize_t B, Py_ssize_t D, const float *product, const float *bias, const float *h,
    const float *scale, const float *shift, float *normed, float *rstd, float *gates, float *after)
{
    Py_ssize_t F = 3 * D;
    for (Py_ssize_t n = 0; n < N; n++, bias += F, scale += F, shift += F)
        for (Py_ssize_t b = 0; b < B; b++, product += F, h += D, normed += F, gates += 4 * D, after += D)
        {
            float *restrict reset = gates, *restrict proposal = gates + D, *restrict update = gates + 2 * D,
                            *restrict candidate = gates + 3 * D;
            *rstd++ = normalize(F, product, bias, normed);
#pragma omp simd
            for (Py_ssize_t i = 0; i < D; i++)
            {
                reset[i] = sigmoid(normed[i] * scale[i] + shift[i]);
                proposal[i] = normed[D + i] * scale[D + i] + shift[D + i];
                update[i] = sigmoid(normed[2 * D + i] * scale[2 * D + i] + shift[2 * D + i] - 1.0f);
                candidate[i] = tangent(reset[i] * proposal[i]);
                after[i] = h[i] + update[i] * (candidate[i] - h[i]);
            }
        }
}

/* into: as above; of_h: the gradient of h as the gates keep it */
VECTORS static void gated_backward(
    Py_ssize_t N, Py_ssize_t B, Py_ssize_t D, const float *gradient, const float *h, const float *normed,
    const float *rstd, const float *gates, const float *scale, float *into, Py_ssize_t into_model, float *of_h,
    float *sums)
{
    Py_ssize_t F = 3 * D;
    for (Py_ssize_t n = 0; n < N; n++, scale += F, into += into_model, sums += 3 * F)
        for (Py_ssize_t b = 0; b < B; b++, gradient += D, h += D, normed += F, gates += 4 * D, of_h += D)
        {
            const float *reset = gates, *proposal = gates + D, *update = gates + 2 * D, *candidate = gates + 3 * D;
            float *row = into + b * F, *restrict of_reset = row, *restrict of_proposal = row + D,
                  *restrict of_update = row + 2 * D;
#pragma omp simd
            for (Py_ssize_t i = 0; i < D; i++)
            {
                float kept = gradient[i] * update[i];
                float inner = kept * (1.0f - candidate[i] * candidate[i]);
                of_reset[i] = inner * proposal[i] * reset[i] * (1.0f - reset[i]);
                of_proposal[i] = inner * reset[i];
                of_update[i] = gradient[i] * (candidate[i] - h[i]) * update[i] * (1.0f - update[i]);
                of_h[i] = gradient[i] - kept;
            }
            normalize_backward(F, row, normed, *rstd++, scale, sums, sums + F, sums + 2 * F);
        }
}

#define MOST 13 /* arguments */

/* Each Python function takes the integers that its C function takes: sizes, strides in floats, addresses. */
static int taken(PyObject *const *arguments, Py_ssize_t given, Py_ssize_t wanted, Py_ssize_t *into)
{
    if (given != wanted)
    {
        PyErr_Format(PyExc_TypeError, "takes %zd integers, not %zd", wanted, given);
        return 0;
    }
    for (Py_ssize_t i = 0; i < given; i++)
        into[i] = PyLong_AsSsize_t(arguments[i]);
    return !PyErr_Occurred();
}

#define FLOATS(i) ((float *)a[i])
#define FUNCTION(name, count, ...)                                                                                     \
    static PyObject *py_##name(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given)              \
    {                                                                                                                  \
        Py_ssize_t a[MOST];                                                                                            \
        if (!taken(arguments, given, count, a))                                                                        \
            return NULL;                                                                                               \
        name(a[0], a[1], a[2], __VA_ARGS__);                                                                           \
        Py_RETURN_NONE;                                                                                                \
    }
#define METHOD(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}

FUNCTION(activated, 12, FLOATS(3), FLOATS(4), a[5], a[6], FLOATS(7), FLOATS(8), FLOATS(9), FLOATS(10), FLOATS(11))
FUNCTION(activated_backward, 11, FLOATS(3), FLOATS(4), FLOATS(5), FLOATS(6), FLOATS(7), FLOATS(8), a[9], FLOATS(10))
FUNCTION(gated, 12, FLOATS(3), FLOATS(4), FLOATS(5), FLOATS(6), FLOATS(7), FLOATS(8), FLOATS(9), FLOATS(10), FLOATS(11))
FUNCTION(
    gated_backward, 13, FLOATS(3), FLOATS(4), FLOATS(5), FLOATS(6), FLOATS(7), FLOATS(8), FLOATS(9), a[10], FLOATS(11),
    FLOATS(12))

static PyMethodDef methods[] = {
    METHOD(activated), METHOD(activated_backward), METHOD(gated), METHOD(gated_backward), {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_kernels", "Elementwise kernels; see _kernels.c.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
