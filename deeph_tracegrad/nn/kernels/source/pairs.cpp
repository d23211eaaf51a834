// Quadratic forms of the channels of each irrep (nn/pairs.py). Edges go side by side in vectors, in tiles, and channels
// in chunks, so that what is made of every two channels stays in a core's first cache.
#include <vector>

#include "layout.hpp"

namespace {

template <class T>
constexpr int64_t kTile = 2 * kLanes<T>;  // edges
constexpr int64_t kChunk = 128;           // pairs, unless a single channel has more

// Some channels of a group, and the packed pairs (u, v >= u) of each of them, u.
struct Chunk {
  const Group* group;
  int64_t begin, end;    // channels
  int64_t first, count;  // pairs
};

std::vector<Chunk> chunks(const Layout& layout) {
  std::vector<Chunk> all;
  int64_t next = 0;
  for (const Group& group : layout.groups)
    for (int64_t u = 0; u < group.channels; ++u) {
      const int64_t count = group.channels - u;
      if (!u || all.back().count + count > kChunk) all.push_back({&group, u, u, next, 0});
      all.back().end = u + 1;
      all.back().count += count;
      next += count;
    }
  return all;
}

int64_t pairs_of(const std::vector<Chunk>& all) { return all.back().first + all.back().count; }

int64_t most_pairs(const std::vector<Chunk>& all) {
  int64_t count = 0;
  for (const Chunk& chunk : all) count = std::max(count, chunk.count);
  return count;
}

// tile (columns, kTile) = the transposed source (edges, columns), with zeros for the edges that are not there.
template <class T>
void turn(int64_t edges, int64_t columns, const T* source, T* tile) {
  Vector<T> square[kLanes<T>];
  for (int64_t e = 0; e < kTile<T>; e += kLanes<T>)
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      for (int64_t k = 0; k < kLanes<T>; ++k)
        square[k] = e + k < edges ? load_part(source + (e + k) * columns + c, columns - c) : Vector<T>{};
      transpose_square<T>(square);
      for (int64_t k = 0; k < std::min<int64_t>(kLanes<T>, columns - c); ++k) store(tile + (c + k) * kTile<T> + e, square[k]);
    }
}

// target (edges, columns) = the transposed tile (columns, kTile)
template <class T>
void turn_back(int64_t edges, int64_t columns, const T* tile, T* target) {
  Vector<T> square[kLanes<T>];
  for (int64_t e = 0; e < edges; e += kLanes<T>)
    for (int64_t c = 0; c < columns; c += kLanes<T>) {
      for (int64_t k = 0; k < kLanes<T>; ++k)
        square[k] = c + k < columns ? load(tile + (c + k) * kTile<T> + e) : Vector<T>{};
      transpose_square<T>(square);
      for (int64_t k = 0; k < std::min<int64_t>(kLanes<T>, edges - e); ++k)
        store_part(target + (e + k) * columns + c, square[k], columns - c);
    }
}

// pairs (pairs of the chunk, kTile): for v > u the sum over the components of one_u other_v + one_v other_u, for v = u
// half of that; one, other (F, kTile). Size: 2l+1 where the compiler is to know it, so that u stays in registers; else 0.
template <class T, bool Same, int Size>
void products_of_size(const Chunk& chunk, const T* one, const T* other, T* pairs) {
  const Group& group = *chunk.group;
  const int64_t size = Size ? Size : group.size();
  for (int64_t u = chunk.begin; u < chunk.end; pairs += (group.channels - u) * kTile<T>, ++u)
    for (int64_t e = 0; e < kTile<T>; e += kLanes<T>) {
      const auto at = [&](const T* features, int64_t p, int64_t channel) {
        return load(features + (group.place[p] + channel) * kTile<T> + e);
      };
      Vector<T> one_u[Size ? Size : kLargestSize], other_u[Size ? Size : kLargestSize], square{};
      for (int64_t p = 0; p < size; ++p) {
        one_u[p] = at(one, p, u), other_u[p] = at(other, p, u);
        square += one_u[p] * other_u[p];
        if constexpr (Same) one_u[p] *= 2;
      }
      store(pairs + e, square);
      for (int64_t v = u + 1; v < group.channels; ++v) {
        Vector<T> sum{};
        for (int64_t p = 0; p < size; ++p) {
          sum += one_u[p] * at(other, p, v);
          if constexpr (!Same) sum += other_u[p] * at(one, p, v);
        }
        store(pairs + (v - u) * kTile<T> + e, sum);
      }
    }
}

// Adds to out (F, kTile) what the chunk's part (pairs, kTile) of the upper triangle of M has in M f; features (F, kTile).
template <class T, int Size>
void mix_of_size(const Chunk& chunk, const T* triangle, const T* features, T* out) {
  const Group& group = *chunk.group;
  const int64_t size = Size ? Size : group.size();
  for (int64_t u = chunk.begin; u < chunk.end; triangle += (group.channels - u) * kTile<T>, ++u)
    for (int64_t e = 0; e < kTile<T>; e += kLanes<T>) {
      const auto place = [&](int64_t p, int64_t channel) { return (group.place[p] + channel) * kTile<T> + e; };
      Vector<T> features_u[Size ? Size : kLargestSize], sum[Size ? Size : kLargestSize];
      for (int64_t p = 0; p < size; ++p) {
        features_u[p] = load(features + place(p, u));
        sum[p] = load(out + place(p, u)) + load(triangle + e) * features_u[p];
      }
      for (int64_t v = u + 1; v < group.channels; ++v) {
        const Vector<T> element = load(triangle + (v - u) * kTile<T> + e);
        for (int64_t p = 0; p < size; ++p) {
          sum[p] += element * load(features + place(p, v));
          store(out + place(p, v), load(out + place(p, v)) + element * features_u[p]);
        }
      }
      for (int64_t p = 0; p < size; ++p) store(out + place(p, u), sum[p]);
    }
}

// work(size): with 2l+1 of the degree as a constant.
template <class Work>
void with_size(int64_t degree, Work work) {
  switch (degree) {
    case 0: return work(std::integral_constant<int, 1>());
    case 1: return work(std::integral_constant<int, 3>());
    case 2: return work(std::integral_constant<int, 5>());
    case 3: return work(std::integral_constant<int, 7>());
    case 4: return work(std::integral_constant<int, 9>());
    default: return work(std::integral_constant<int, 0>());
  }
}

// What is done with the products P (R, U) of one and other, (R, F) both; where a target is null it is not wanted.
template <class T>
struct Contraction {
  const T* weight;    // (U, H)
  T* forms;           // (R, H): P times the weight
  const T* gradient;  // (R, H)
  T* weights;         // (U, H): the transposed P times the gradient
};

// target (rows, columns padded) = source (rows, columns); the rows that are not there are zeros.
template <class T>
void pad(int64_t rows, int64_t all_rows, int64_t columns, const T* source, T* target) {
  const int64_t width = padded<T>(columns);
  std::fill_n(target, all_rows * width, T(0));
  for (int64_t r = 0; r < rows; ++r) std::copy_n(source + r * columns, columns, target + r * width);
}

template <class T, bool Same>
void contract(const Layout& layout, const T* one, const T* other, int64_t rows, int64_t width, Contraction<T> wanted,
              int threads) {
  constexpr int64_t tile = kTile<T>;
  static thread_local Scratch<T> sum_memory;
  const std::vector<Chunk> all = chunks(layout);
  const int64_t pairs = pairs_of(all), columns = padded<T>(width), tiles = (rows + tile - 1) / tile;
  T* sums = wanted.weights ? cleared(sum_memory, threads * pairs * columns) : nullptr;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t share = 0; share < threads; ++share) {
    static thread_local Scratch<T> one_memory, other_memory, pair_memory, form_memory, gradient_memory;
    T *one_tile = one_memory.of_size(layout.dim * tile), *other_tile = one_tile;
    if constexpr (!Same) other_tile = other_memory.of_size(layout.dim * tile);
    T *packed = pair_memory.of_size(most_pairs(all) * tile), *forms = form_memory.of_size(width * tile);
    T* gradient = gradient_memory.of_size(tile * columns);
    for (int64_t t = share * tiles / threads; t < (share + 1) * tiles / threads; ++t) {
      const int64_t first = t * tile, count = std::min(tile, rows - first);
      turn(count, layout.dim, one + first * layout.dim, one_tile);
      if constexpr (!Same) turn(count, layout.dim, other + first * layout.dim, other_tile);
      if (sums) pad(count, tile, width, wanted.gradient + first * width, gradient);
      for (const Chunk& chunk : all) {
        with_size(chunk.group->degree, [&](auto size) {
          products_of_size<T, Same, size.value>(chunk, one_tile, other_tile, packed);
        });
        if (wanted.forms)
          multiply<T>(width, tile, chunk.count, wanted.weight + chunk.first * width, 1, width, packed, tile, forms, tile,
                      chunk.first);
        if (sums)
          multiply<T>(chunk.count, columns, tile, packed, tile, 1, gradient, columns,
                      sums + (share * pairs + chunk.first) * columns, columns, true);
      }
      if (wanted.forms) turn_back(count, width, forms, wanted.forms + first * width);
    }
  }
  for (int64_t share = 0; sums && share < threads; ++share)
    for (int64_t u = 0; u < pairs; ++u)
      for (int64_t h = 0; h < width; ++h)
        wanted.weights[u * width + h] =
            (share ? wanted.weights[u * width + h] : T(0)) + sums[(share * pairs + u) * columns + h];
}

template <class T>
void contract(const int64_t* numbers, const T* one, const T* other, int64_t rows, int64_t width, Contraction<T> wanted,
              int threads) {
  Plan plan(numbers);
  const Layout layout(plan);
  if (one == other) contract<T, true>(layout, one, other, rows, width, wanted, threads);
  else contract<T, false>(layout, one, other, rows, width, wanted, threads);
}

// out (R, F): the symmetric matrices whose upper triangles are slope (R, H) times the transposed weight (U, H), times
// the features (R, F).
template <class T>
void mixed(const int64_t* numbers, const T* features, const T* slope, int64_t rows, const T* weight, int64_t width,
           T* out, int threads) {
  constexpr int64_t tile = kTile<T>;
  Plan plan(numbers);
  const Layout layout(plan);
  const std::vector<Chunk> all = chunks(layout);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t first = 0; first < rows; first += tile) {
    static thread_local Scratch<T> feature_memory, slope_memory, triangle_memory, out_memory;
    T *feature_tile = feature_memory.of_size(layout.dim * tile), *slope_tile = slope_memory.of_size(width * tile);
    T *triangle = triangle_memory.of_size(most_pairs(all) * tile), *out_tile = cleared(out_memory, layout.dim * tile);
    const int64_t count = std::min(tile, rows - first);
    turn(count, layout.dim, features + first * layout.dim, feature_tile);
    turn(count, width, slope + first * width, slope_tile);
    for (const Chunk& chunk : all) {
      multiply<T>(chunk.count, tile, width, weight + chunk.first * width, width, 1, slope_tile, tile, triangle, tile, false);
      with_size(chunk.group->degree, [&](auto size) {
        mix_of_size<T, size.value>(chunk, triangle, feature_tile, out_tile);
      });
    }
    turn_back(count, layout.dim, out_tile, out + first * layout.dim);
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                                                \
  extern "C" void pair_forms_##NAME(const int64_t* plan, const T* one, const T* other, int64_t rows, const T* weight,  \
                                    int64_t width, T* out, int64_t threads) {                                          \
    contract<T>(plan, one, other, rows, width, {weight, out, nullptr, nullptr}, threads);                              \
  }                                                                                                                    \
  extern "C" void pair_weights_##NAME(const int64_t* plan, const T* one, const T* other, const T* gradient,            \
                                      int64_t rows, int64_t width, T* out, int64_t threads) {                          \
    contract<T>(plan, one, other, rows, width, {nullptr, nullptr, gradient, out}, threads);                            \
  }                                                                                                                    \
  extern "C" void pair_forms_and_weights_##NAME(const int64_t* plan, const T* one, const T* other, const T* weight,    \
                                                const T* gradient, int64_t rows, int64_t width, T* forms, T* weights,  \
                                                int64_t threads) {                                                     \
    contract<T>(plan, one, other, rows, width, {weight, forms, gradient, weights}, threads);                           \
  }                                                                                                                    \
  extern "C" void pair_mixed_##NAME(const int64_t* plan, const T* features, const T* slope, int64_t rows,              \
                                    const T* weight, int64_t width, T* out, int64_t threads) {                         \
    mixed<T>(plan, features, slope, rows, weight, width, out, threads);                                                \
  }
DEFINE(float, float32)
DEFINE(double, float64)
