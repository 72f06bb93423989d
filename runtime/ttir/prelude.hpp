// What every lowered kernel begins with: element types, arithmetic as GPUs have it, tiles' products, bounds, threads.
// Few headers: half of the time to compile a small kernel would be <cmath>.
#include <pthread.h>
#include <stdint.h>

#include <type_traits>

#define INLINE static inline __attribute__((always_inline))

// ---- elements
using f16 = _Float16;

struct bf16 {
  uint16_t bits;
  bf16() = default;
  inline __attribute__((always_inline)) bf16(float x);
  inline __attribute__((always_inline)) operator float() const;
};

template <class To, class From>
INLINE To from_bits(From x) {
  To y;
  static_assert(sizeof(To) <= sizeof(From), "bits of an element");
  __builtin_memcpy(&y, &x, sizeof(To));
  return y;
}

inline bf16::bf16(float x) {  // to nearest even; a NaN stays one
  uint32_t u = from_bits<uint32_t>(x);
  bits = x != x ? 0x7fff : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
inline bf16::operator float() const { return from_bits<float>(uint32_t(bits) << 16); }

// ---- integers
template <class T>
struct Unsigned : std::make_unsigned<T> {};
template <>
struct Unsigned<bool> {
  using type = bool;
};
template <class T>
using unsigned_ = typename Unsigned<T>::type;
template <class T>
INLINE unsigned_<T> u(T x) {
  return unsigned_<T>(x);
}

template <class T>
INLINE T divide(T a, T b) {
  if (b == 0) return T(-1);
  if (std::is_signed<T>::value && b == T(-1)) return T(unsigned_<T>(0) - unsigned_<T>(a));
  return a / b;
}
template <class T>
INLINE T remainder_(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed<T>::value && b == T(-1)) return 0;
  return a % b;
}
template <class T, class N>
INLINE T shift_left(T a, N by) {
  return unsigned_<N>(by) >= sizeof(T) * 8 ? T(0) : T(unsigned_<T>(a) << by);
}
template <class T, class N>
INLINE T shift_right(T a, N by) {
  return unsigned_<N>(by) >= sizeof(T) * 8 ? T(a < 0 ? -1 : 0) : T(a >> by);
}
INLINE int32_t high_product(uint32_t a, uint32_t b) { return int32_t((uint64_t(a) * b) >> 32); }
INLINE int64_t high_product(uint64_t a, uint64_t b) { return int64_t(((unsigned __int128)a * b) >> 64); }

template <class I, class F>
INLINE I to_integer(F x) {  // towards zero; what does not fit is the nearest that does, NaN is 0
  constexpr bool is_signed = std::is_signed<I>::value;
  constexpr int width = sizeof(I) * 8 - is_signed;
  const F above = F(uint64_t(1) << (width - 1)) * 2, below = is_signed ? -above : F(0);
  const I most = I(~(is_signed ? unsigned_<I>(1) << width : unsigned_<I>(0)));
  const I least = is_signed ? I(unsigned_<I>(1) << (width % 64)) : I(0);
  return x != x ? I(0) : x >= above ? most : x <= below ? least : I(x);
}

// ---- floats
template <class T>
INLINE T max_number(T a, T b) { return a > b || b != b ? a : b; }
template <class T>
INLINE T min_number(T a, T b) { return a < b || b != b ? a : b; }
template <class T>
INLINE T max_or_nan(T a, T b) { return a > b || a != a ? a : b; }
template <class T>
INLINE T min_or_nan(T a, T b) { return a < b || a != a ? a : b; }

// 2 ** f for f in [-1/2, 1/2], of degree 6 (Cephes, exp2f); then scaled by a power of two in two steps,
// so that what is subnormal is rounded once.
INLINE float scaled_exp2(float f, float whole) {
  float p = 1.535336188e-4f;
  p = p * f + 1.339887440e-3f;
  p = p * f + 9.618437358e-3f;
  p = p * f + 5.550332471e-2f;
  p = p * f + 2.402264791e-1f;
  p = p * f + 6.931472029e-1f;
  p = p * f + 1.0f;
  int32_t n = int32_t(whole), half = n >> 1;
  return p * from_bits<float>(uint32_t(half + 127) << 23) * from_bits<float>(uint32_t(n - half + 127) << 23);
}
#define UNARY(name)                                              \
  INLINE float name##_(float x) { return __builtin_##name##f(x); } \
  INLINE double name##_(double x) { return __builtin_##name(x); }
#define BINARY(name)                                                         \
  INLINE float name##_(float x, float y) { return __builtin_##name##f(x, y); } \
  INLINE double name##_(double x, double y) { return __builtin_##name(x, y); }
UNARY(acos) UNARY(acosh) UNARY(asin) UNARY(asinh) UNARY(atan) UNARY(atanh) UNARY(cbrt) UNARY(ceil) UNARY(cos)
UNARY(cosh) UNARY(erf) UNARY(erfc) UNARY(expm1) UNARY(fabs) UNARY(floor) UNARY(lgamma) UNARY(log) UNARY(log10)
UNARY(log1p) UNARY(log2) UNARY(nearbyint) UNARY(rint) UNARY(round) UNARY(sin) UNARY(sinh) UNARY(sqrt) UNARY(tan)
UNARY(tanh) UNARY(tgamma) UNARY(trunc)
BINARY(atan2) BINARY(copysign) BINARY(fmax) BINARY(fmin) BINARY(fmod) BINARY(hypot) BINARY(pow)
INLINE float fma_(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
INLINE double fma_(double x, double y, double z) { return __builtin_fma(x, y, z); }

INLINE float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }
// Both are read before one is taken. As `c ? a : b` with a in memory, g++ 12 makes masked loads of a loop of two
// vectors of double, and takes the first one's mask for the second.
template <class T>
INLINE T select_(bool c, T a, T b) {
  return c ? a : b;
}
INLINE float exp2_(float x) {
  float t = x > 129.0f ? 129.0f : x < -152.0f ? -152.0f : x;
  float whole = nearest(t);
  whole = t != t ? 0.0f : whole;
  return scaled_exp2(t - whole, whole);
}
INLINE float exp_(float x) {
  float t = x > 90.0f ? 90.0f : x < -106.0f ? -106.0f : x;
  float whole = nearest(t * 1.44269504f);
  whole = t != t ? 0.0f : whole;
  float rest = fma_(whole, -0.693359375f, t);  // log 2 in two parts, the first of 9 bits
  rest = fma_(whole, 2.12194440e-4f, rest);
  return scaled_exp2(rest * 1.44269504f, whole);
}
static inline double exp2_(double x) { return __builtin_exp2(x); }
static inline double exp_(double x) { return __builtin_exp(x); }

template <int BITS>
INLINE float coarse(float x) {  // rounded to so many significant bits
  uint32_t y = from_bits<uint32_t>(x), half = uint32_t(1) << (23 - BITS);
  return x != x ? x : from_bits<float>((y + half) & ~(2 * half - 1));
}
INLINE float tf32(float x) { return from_bits<float>(from_bits<uint32_t>(x) & ~uint32_t(0x1fff)); }

// ---- products: c[M][N] += a[M][K] b[K][N]
template <class T, int ROWS, int VECTORS, int K, int N>
INLINE void block_product(const T* a, const T* b, T* c) {
  constexpr int W = 64 / sizeof(T);
  typedef T Vector __attribute__((vector_size(64)));
  typedef T Loose __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
  Vector sums[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) sums[r][v] = *(const Loose*)(c + r * N + v * W);
  for (int k = 0; k < K; k++) {
    Vector row[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) row[v] = *(const Loose*)(b + k * N + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const Vector left = a[r * K + k] - Vector{};
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; v++) sums[r][v] += left * row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) *(Loose*)(c + r * N + v * W) = sums[r][v];
}

template <class T, int M, int N, int K>
static __attribute__((noinline)) void product(const T* __restrict a, const T* __restrict b, T* __restrict c) {
  constexpr int W = 64 / sizeof(T);
  if constexpr (N % W == 0 && std::is_floating_point<T>::value) {
    constexpr int VECTORS = N % (4 * W) == 0 ? 4 : N % (2 * W) == 0 ? 2 : 1, ROWS = VECTORS == 4 ? 4 : 8;
    for (int j = 0; j < N; j += VECTORS * W) {
      int i = 0;
      for (; i + ROWS <= M; i += ROWS) block_product<T, ROWS, VECTORS, K, N>(a + i * K, b + j, c + i * N + j);
      for (; i < M; i++) block_product<T, 1, VECTORS, K, N>(a + i * K, b + j, c + i * N + j);
    }
  } else {
    for (int i = 0; i < M; i++)
      for (int k = 0; k < K; k++)
        for (int j = 0; j < N; j++) c[i * N + j] += a[i * K + k] * b[k * N + j];
  }
}

// ---- a launch
struct Launch {
  const int64_t *arguments, *low, *high;  // scalars and addresses; where each tensor begins and ends
  int32_t tensors, grid[3], threads;
  int64_t* fault;  // what, place, x, y, z, address
  int64_t claimed;
};
struct Program {
  const Launch* launch;
  int32_t x, y, z;
};
struct Stop {};
constexpr int64_t STOPPED = 1, NO_MEMORY = 2;

[[noreturn]] static __attribute__((noinline, cold)) void stop(const Program& at, int64_t place, int64_t address) {
  int64_t* fault = at.launch->fault;
  int64_t none = 0;
  if (__atomic_compare_exchange_n(fault, &none, STOPPED, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    fault[1] = place, fault[2] = at.x, fault[3] = at.y, fault[4] = at.z, fault[5] = address;
  }
  throw Stop{};
}

// Addresses that lanes reach: all within one tensor, the argument `tensor`, or any where that is -1.
struct Reach {
  int64_t low = INT64_MAX, high = INT64_MIN;
};
INLINE void check(const Program& at, int64_t place, int tensor, const Reach& reach, int64_t size) {
  if (reach.low > reach.high) return;
  const Launch& launch = *at.launch;
  for (int n = tensor < 0 ? 0 : tensor; n < (tensor < 0 ? launch.tensors : tensor + 1); n++)
    if (reach.low >= launch.low[n] && reach.high + size <= launch.high[n]) return;
  stop(at, place, reach.low < (tensor < 0 ? 0 : launch.low[tensor]) ? reach.low : reach.high);
}
