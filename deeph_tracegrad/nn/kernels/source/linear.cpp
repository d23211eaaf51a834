// Linear maps between channels of the same irrep (nn/linear.py), for all components of all rows in one pass.
#include "layout.hpp"

namespace {

constexpr int64_t kTile = 64;

// The channels of one irrep: weight (rows, columns) from `weights` on; places of its components in both rows.
struct Pair {
  int64_t size, rows, columns, weights;
  const int64_t *source, *target;
};

struct Linear {
  int64_t source_dim, target_dim, weights;
  std::vector<Pair> pairs;

  explicit Linear(Plan& plan) : source_dim(plan.number()), target_dim(plan.number()), weights(plan.number()) {
    pairs.resize(plan.number());
    for (Pair& pair : pairs) {
      pair.size = plan.number();
      pair.rows = plan.number();
      pair.columns = plan.number();
      pair.weights = plan.number();
      pair.source = plan.numbers(pair.size);
      pair.target = plan.numbers(pair.size);
    }
  }

  int64_t widest() const {
    int64_t width = 0;
    for (const Pair& pair : pairs) width = std::max({width, pair.rows, pair.columns});
    return width;
  }
};

struct Tile {
  int64_t kind, first, rows;
};

// bounds: (kinds + 1), where the rows of each kind begin in the order of `members`.
std::vector<Tile> tiles_of(int64_t kinds, const int64_t* bounds) {
  std::vector<Tile> tiles;
  for (int64_t kind = 0; kind < kinds; ++kind)
    for (int64_t first = bounds[kind]; first < bounds[kind + 1]; first += kTile)
      tiles.push_back({kind, first, std::min(kTile, bounds[kind + 1] - first)});
  return tiles;
}

// Rows that stand together, or copied together.
template <class T>
const T* together(const T* features, int64_t dim, const int64_t* members, const Tile& tile, Scratch<T>& memory) {
  if (!members) return features + tile.first * dim;
  T* copied = memory.of_size(kTile * dim);
  for (int64_t r = 0; r < tile.rows; ++r) std::copy_n(features + members[tile.first + r] * dim, dim, copied + r * dim);
  return copied;
}

// (columns padded): scale * weight, or its transpose.
template <class T>
void pack(const Pair& pair, const T* weight, T scale, bool transposed, T* packed) {
  if (transposed) return transpose(pair.rows, pair.columns, weight, pair.columns, scale, packed);
  const int64_t width = padded<T>(pair.columns);
  for (int64_t r = 0; r < pair.rows; ++r) {
    for (int64_t c = 0; c < pair.columns; ++c) packed[r * width + c] = scale * weight[r * pair.columns + c];
    std::fill(packed + r * width + pair.columns, packed + (r + 1) * width, T(0));
  }
}

struct Span {
  int64_t first, count;
};

// The parts of a row of the result that no pair writes.
std::vector<Span> holes_of(const Linear& plan, bool transposed) {
  std::vector<Span> written;
  for (const Pair& pair : plan.pairs)
    for (int64_t p = 0; p < pair.size; ++p)
      written.push_back(transposed ? Span{pair.source[p], pair.rows} : Span{pair.target[p], pair.columns});
  std::sort(written.begin(), written.end(), [](const Span& one, const Span& other) { return one.first < other.first; });
  written.push_back({transposed ? plan.source_dim : plan.target_dim, 0});
  std::vector<Span> holes;
  int64_t end = 0;
  for (const Span& part : written) {
    if (part.first > end) holes.push_back({end, part.first - end});
    end = part.first + part.count;
  }
  return holes;
}

// out (R, F) = or += features W + bias; transposed: from the target's layout to the source's.
template <class T>
void apply(const Linear& plan, const T* scales, const T* features, const T* weight, const int64_t* members, int64_t kinds,
           const int64_t* bounds, bool transposed, const T* bias, int64_t biased, bool add, T* out, int threads) {
  const std::vector<Span> holes = holes_of(plan, transposed);
  const std::vector<Tile> tiles = tiles_of(kinds, bounds);
  const int64_t count = tiles.size(), width = padded<T>(plan.widest());
  const int64_t in_dim = transposed ? plan.target_dim : plan.source_dim;
  const int64_t out_dim = transposed ? plan.source_dim : plan.target_dim;
#pragma omp parallel num_threads(threads)
  {
    static thread_local Scratch<T> weight_memory, row_memory, result_memory;
    T* packed = weight_memory.of_size(plan.pairs.size() * width * width);
    T* result = result_memory.of_size(kTile * width);
    int64_t kind = -1;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < count; ++t) {
      const Tile& tile = tiles[t];
      if (kind != tile.kind) {
        kind = tile.kind;
        for (size_t k = 0; k < plan.pairs.size(); ++k)
          pack(plan.pairs[k], weight + kind * plan.weights + plan.pairs[k].weights, scales[k], transposed,
               packed + k * width * width);
      }
      const T* in = together(features, in_dim, members, tile, row_memory);
      const auto row = [&](int64_t r) { return out + (members ? members[tile.first + r] : tile.first + r) * out_dim; };
      if (!add)
        for (const Span& hole : holes)
          for (int64_t r = 0; r < tile.rows; ++r) std::fill_n(row(r) + hole.first, hole.count, T(0));
      for (size_t k = 0; k < plan.pairs.size(); ++k) {
        const Pair& pair = plan.pairs[k];
        const int64_t depth = transposed ? pair.columns : pair.rows, columns = transposed ? pair.rows : pair.columns;
        const int64_t ldb = padded<T>(columns);
        for (int64_t p = 0; p < pair.size; ++p) {
          const T* from = in + (transposed ? pair.target : pair.source)[p];
          const int64_t place = (transposed ? pair.source : pair.target)[p];
          const T* matrix = packed + k * width * width;
          if (!members && ldb == columns) {
            multiply<T>(tile.rows, ldb, depth, from, in_dim, 1, matrix, ldb, row(0) + place, out_dim, add);
            continue;
          }
          multiply<T>(tile.rows, ldb, depth, from, in_dim, 1, matrix, ldb, result, ldb, false);
          for (int64_t r = 0; r < tile.rows; ++r) {
            T* to = row(r) + place;
            for (int64_t c = 0; c < columns; c += kLanes<T>) {
              const Vector<T> before = add ? load_part(to + c, columns - c) : Vector<T>{};
              store_part(to + c, before + load(result + r * ldb + c), columns - c);
            }
          }
        }
      }
      for (int64_t r = 0; bias && r < tile.rows; ++r)
        for (int64_t c = 0; c < biased; ++c) row(r)[c] += bias[c];
    }
  }
}

// weight_gradient (kinds, W): zeros.
template <class T>
void weight_gradient(const Linear& plan, const T* scales, const T* features, const T* gradient, const int64_t* members,
                     int64_t kinds, const int64_t* bounds, T* result, int threads) {
  const std::vector<Tile> tiles = tiles_of(kinds, bounds);
  const int64_t count = tiles.size(), width = padded<T>(plan.widest());
  const int64_t size = plan.pairs.size() * width * width;
  static thread_local Scratch<T> sum_memory;
  // Threads share out the irreps, not the rows: each weight then has one sum, in one order.
  T* sums = sum_memory.of_size(size);
#pragma omp parallel num_threads(threads)
  {
    static thread_local Scratch<T> in_memory, gradient_memory, padded_memory;
    T* columns_together = padded_memory.of_size(kTile * width);
    std::fill_n(columns_together, kTile * width, T(0));
#pragma omp for schedule(dynamic)
    for (size_t k = 0; k < plan.pairs.size(); ++k) {
      const Pair& pair = plan.pairs[k];
      const int64_t ldb = padded<T>(pair.columns);
      T* sum = sums + k * width * width;
      for (int64_t t = 0; t < count; ++t) {
        const Tile& tile = tiles[t];
        if (t == 0 || tile.kind != tiles[t - 1].kind) std::fill_n(sum, pair.rows * ldb, T(0));
        const T* in = together(features, plan.source_dim, members, tile, in_memory);
        const T* upstream = together(gradient, plan.target_dim, members, tile, gradient_memory);
        for (int64_t p = 0; p < pair.size; ++p) {
          const T* x = in + pair.source[p];
          if (ldb == pair.columns) {
            multiply<T>(pair.rows, ldb, tile.rows, x, 1, plan.source_dim, upstream + pair.target[p], plan.target_dim, sum,
                        ldb, true);
            continue;
          }
          for (int64_t r = 0; r < tile.rows; ++r)
            for (int64_t c = 0; c < pair.columns; c += kLanes<T>)
              store(columns_together + r * ldb + c,
                    load_part(upstream + r * plan.target_dim + pair.target[p] + c, pair.columns - c));
          multiply<T>(pair.rows, ldb, tile.rows, x, 1, plan.source_dim, columns_together, ldb, sum, ldb, true);
        }
        if (t + 1 == count || tile.kind != tiles[t + 1].kind)
          for (int64_t r = 0; r < pair.rows; ++r)
            for (int64_t c = 0; c < pair.columns; ++c)
              result[tile.kind * plan.weights + pair.weights + r * pair.columns + c] = scales[k] * sum[r * ldb + c];
      }
    }
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                                                 \
  extern "C" void linear_apply_##NAME(const int64_t* numbers, const T* scales, const T* features, const T* weight,      \
                                      const int64_t* members, int64_t kinds, const int64_t* bounds, int64_t transposed, \
                                      const T* bias, int64_t biased, int64_t add, T* out, int64_t threads) {            \
    Plan plan(numbers);                                                                                                 \
    apply<T>(Linear(plan), scales, features, weight, members, kinds, bounds, transposed, bias, biased, add, out,        \
             threads);                                                                                                  \
  }                                                                                                                     \
  extern "C" void linear_weights_##NAME(const int64_t* numbers, const T* scales, const T* features, const T* gradient,  \
                                        const int64_t* members, int64_t kinds, const int64_t* bounds, T* result,        \
                                        int64_t threads) {                                                              \
    Plan plan(numbers);                                                                                                 \
    weight_gradient<T>(Linear(plan), scales, features, gradient, members, kinds, bounds, result, threads);              \
  }
DEFINE(float, float32)
DEFINE(double, float64)
