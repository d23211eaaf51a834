// DeepH-E3's layer norm over whole graphs (nn/norm.py), with the sum with the skipped features.
#include <cmath>

#include "layout.hpp"

namespace {

struct Arguments {
  const Layout& layout;
  const int64_t* rotations;  // null for atoms
  const int64_t* graph_of;
  int64_t rows, graphs;
  double epsilon;
  int threads;
};

struct Sums {
  std::vector<int64_t> start;  // of each group's components
  int64_t size = 0;
  explicit Sums(const Layout& layout) {
    for (const Group& group : layout.groups) {
      start.push_back(size);
      size += group.size();
    }
  }
};

// The rows of one thread.
inline int64_t share(int64_t rows, int thread, int threads) { return rows * thread / threads; }

// Adds up what all threads have found, always in the same order.
void gather_parts(const std::vector<std::vector<double>>& parts, std::vector<double>& total) {
  for (const auto& part : parts)
    for (size_t k = 0; k < total.size(); ++k) total[k] += part[k];
}

std::vector<double> rows_of(const Arguments& a) {
  std::vector<double> rows(a.graphs, 0.0);
  for (int64_t r = 0; r < a.rows; ++r) rows[a.graph_of[r]] += 1.0;
  return rows;
}

template <class T>
double total_of(Vector<T> lanes) {
  double total = 0.0;
  for (int k = 0; k < kLanes<T>; ++k) total += lanes[k];
  return total;
}

template <class T>
double sum_of(const T* values, int64_t count) {
  Vector<T> sum{};
  for (int64_t c = 0; c < count; c += kLanes<T>) sum += load_part(values + c, count - c);
  return total_of<T>(sum);
}

// Adds a row's values, one for each component of a group, in global coordinates.
template <class T>
void add_global(const Arguments& a, const Group& group, int64_t row, const double* values, double* sums) {
  if (!a.rotations || group.degree == 0) {
    for (int64_t p = 0; p < group.size(); ++p) sums[p] += values[p];
    return;
  }
  const T* turn = rotation<T>(a.rotations, group, row);
  for (int64_t p = 0; p < group.size(); ++p)
    for (int64_t q = 0; q < group.size(); ++q) sums[q] += turn[p * group.size() + q] * values[p];
}

// A graph's values in the frame of a row.
template <class T>
void into_frame(const Arguments& a, const Group& group, int64_t row, const double* values, T* local) {
  if (!a.rotations || group.degree == 0) {
    for (int64_t p = 0; p < group.size(); ++p) local[p] = values[p];
    return;
  }
  const T* turn = rotation<T>(a.rotations, group, row);
  for (int64_t p = 0; p < group.size(); ++p) {
    T sum = 0;
    for (int64_t q = 0; q < group.size(); ++q) sum += turn[p * group.size() + q] * T(values[q]);
    local[p] = sum;
  }
}

// For each row what `add` puts into (graphs, width) sums.
template <class Add>
std::vector<double> summed(const Arguments& a, int64_t width, Add add) {
  std::vector<std::vector<double>> parts(a.threads, std::vector<double>(width));
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (int thread = 0; thread < a.threads; ++thread)
    for (int64_t r = share(a.rows, thread, a.threads); r < share(a.rows, thread + 1, a.threads); ++r)
      add(r, parts[thread].data());
  std::vector<double> total(width, 0.0);
  gather_parts(parts, total);
  return total;
}

// means: (graphs, sums), in global coordinates. sizes: (graphs, groups), 1 where nothing is scaled.
template <class T>
void forward(const Arguments& a, const T* features, const T* weight, const T* bias, int64_t biased, const T* skip, T* out,
             double* means, double* sizes) {
  const Layout& layout = a.layout;
  const Sums sums(layout);
  const int64_t groups = layout.groups.size();
  const std::vector<double> rows = rows_of(a);
  const std::vector<double> totals = summed(a, a.graphs * sums.size, [&](int64_t r, double* total) {
    double values[kLargestSize];
    for (int64_t g = 0; g < groups; ++g) {
      const Group& group = layout.groups[g];
      for (int64_t p = 0; p < group.size(); ++p)
        values[p] = sum_of(features + r * layout.dim + group.place[p], group.channels);
      add_global<T>(a, group, r, values, total + a.graph_of[r] * sums.size + sums.start[g]);
    }
  });
  for (int64_t n = 0; n < a.graphs; ++n)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t p = 0; p < layout.groups[g].size(); ++p)
        means[n * sums.size + sums.start[g] + p] =
            totals[n * sums.size + sums.start[g] + p] / (std::max(rows[n], 1.0) * layout.groups[g].channels);
  const std::vector<double> squares = summed(a, a.graphs * groups, [&](int64_t r, double* total) {
    for (int64_t g = 0; g < groups && layout.groups[g].degree == 0; ++g) {
      const Group& group = layout.groups[g];
      const T* values = features + r * layout.dim + group.place[0];
      const T mean = means[a.graph_of[r] * sums.size + sums.start[g]];
      T sum = 0;
      for (int64_t c = 0; c < group.channels; ++c) sum += (values[c] - mean) * (values[c] - mean);
      total[a.graph_of[r] * groups + g] += sum;
    }
  });
  for (int64_t n = 0; n < a.graphs; ++n)
    for (int64_t g = 0; g < groups; ++g)
      sizes[n * groups + g] =
          layout.groups[g].degree
              ? 1.0
              : std::sqrt(squares[n * groups + g] / (std::max(rows[n], 1.0) * layout.groups[g].channels)) + a.epsilon;
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (int64_t r = 0; r < a.rows; ++r) {
    T local[kLargestSize];
    for (int64_t g = 0; g < groups; ++g) {
      const Group& group = layout.groups[g];
      into_frame<T>(a, group, r, means + a.graph_of[r] * sums.size + sums.start[g], local);
      const T inverse = 1.0 / sizes[a.graph_of[r] * groups + g];
      for (int64_t p = 0; p < group.size(); ++p) {
        const int64_t at = r * layout.dim + group.place[p];
        for (int64_t c = 0; c < group.channels; c += kLanes<T>) {
          const int64_t count = group.channels - c;
          const Vector<T> centred = load_part(features + at + c, count) - local[p];
          const Vector<T> skipped = load_part(skip + at + c, count);
          store_part(out + at + c, centred * inverse * load_part(weight + group.first + c, count) + skipped, count);
        }
      }
    }
    for (int64_t c = 0; c < biased; ++c) out[r * layout.dim + c] += bias[c];
  }
}

// Gradients of the features, and of weight (C) and bias.
template <class T>
void backward(const Arguments& a, const T* features, const T* weight, int64_t biased, const double* means,
              const double* sizes, const T* gradient, T* feature_gradient, T* weight_gradient, T* bias_gradient) {
  const Layout& layout = a.layout;
  const Sums sums(layout);
  const int64_t groups = layout.groups.size();
  const std::vector<double> rows = rows_of(a);
  // of each graph: the gradients of its means, then the products of gradients and centred scalars; then weight, bias
  const int64_t products = a.graphs * sums.size, weights = products + a.graphs * groups, biases = weights + layout.channels;
  const std::vector<double> totals = summed(a, biases + biased, [&](int64_t r, double* total) {
    static thread_local Scratch<T> weight_memory;
    T* weight_sums = cleared(weight_memory, layout.channels);
    T local[kLargestSize];
    double values[kLargestSize];
    const int64_t graph = a.graph_of[r];
    for (int64_t g = 0; g < groups; ++g) {
      const Group& group = layout.groups[g];
      into_frame<T>(a, group, r, means + graph * sums.size + sums.start[g], local);
      const T inverse = 1.0 / sizes[graph * groups + g];
      T product = 0;
      for (int64_t p = 0; p < group.size(); ++p) {
        const T* x = features + r * layout.dim + group.place[p];
        const T* d = gradient + r * layout.dim + group.place[p];
        const T* w = weight + group.first;
        T* own = weight_sums + group.first;
        Vector<T> sum{}, along{};
        for (int64_t c = 0; c < group.channels; c += kLanes<T>) {
          const int64_t count = std::min<int64_t>(kLanes<T>, group.channels - c);
          const Vector<T> upstream = load_part(d + c, count), scaled = upstream * load_part(w + c, count);
          const Vector<T> along_row = load_part(x + c, count) - local[p];
          store_part(own + c, load_part(own + c, count) + upstream * along_row * inverse, count);
          sum += scaled;
          along += scaled * along_row;
        }
        values[p] = total_of<T>(sum) * inverse;
        product += total_of<T>(along);
      }
      if (group.degree == 0) total[products + graph * groups + g] += product;
      add_global<T>(a, group, r, values, total + graph * sums.size + sums.start[g]);
    }
    for (int64_t c = 0; c < layout.channels; ++c) total[weights + c] += weight_sums[c];
    for (int64_t c = 0; c < biased; ++c) total[biases + c] += gradient[r * layout.dim + c];
  });
  for (int64_t c = 0; c < layout.channels; ++c) weight_gradient[c] = totals[weights + c];
  for (int64_t c = 0; c < biased; ++c) bias_gradient[c] = totals[biases + c];
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (int64_t r = 0; r < a.rows; ++r) {
    T local[kLargestSize], shift[kLargestSize];
    double mean_gradient[kLargestSize];
    const int64_t graph = a.graph_of[r];
    for (int64_t g = 0; g < groups; ++g) {
      const Group& group = layout.groups[g];
      const double count_of_graph = rows[graph] * group.channels, size = sizes[graph * groups + g];
      into_frame<T>(a, group, r, means + graph * sums.size + sums.start[g], local);
      for (int64_t p = 0; p < group.size(); ++p)
        mean_gradient[p] = totals[graph * sums.size + sums.start[g] + p] / count_of_graph;
      into_frame<T>(a, group, r, mean_gradient, shift);
      // of the size: d size / d x = centred / (count (size - epsilon))
      const double spread = size - a.epsilon;
      const T pull = group.degree || spread <= 0.0
                         ? 0.0
                         : totals[products + graph * groups + g] / (size * size * spread * count_of_graph);
      const T inverse = 1.0 / size;
      for (int64_t p = 0; p < group.size(); ++p) {
        const int64_t at = r * layout.dim + group.place[p];
        for (int64_t c = 0; c < group.channels; c += kLanes<T>) {
          const int64_t count = group.channels - c;
          const Vector<T> centred = load_part(features + at + c, count) - local[p];
          const Vector<T> scaled = load_part(gradient + at + c, count) * load_part(weight + group.first + c, count);
          store_part(feature_gradient + at + c, scaled * inverse - centred * pull - shift[p], count);
        }
      }
    }
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                                                 \
  extern "C" void norm_forward_##NAME(const int64_t* numbers, const int64_t* rotations, const int64_t* graph_of,        \
                                      int64_t rows, int64_t graphs, const double* epsilon, int64_t threads,             \
                                      const T* features, const T* weight, const T* bias, int64_t biased, const T* skip, \
                                      T* out, double* means, double* sizes) {                                           \
    Plan plan(numbers);                                                                                                 \
    const Layout layout(plan);                                                                                          \
    forward<T>({layout, rotations, graph_of, rows, graphs, *epsilon, int(threads)}, features, weight, bias, biased,     \
               skip, out, means, sizes);                                                                                \
  }                                                                                                                     \
  extern "C" void norm_backward_##NAME(const int64_t* numbers, const int64_t* rotations, const int64_t* graph_of,       \
                                       int64_t rows, int64_t graphs, const double* epsilon, int64_t threads,            \
                                       const T* features, const T* weight, int64_t biased, const double* means,         \
                                       const double* sizes, const T* gradient, T* feature_gradient, T* weight_gradient, \
                                       T* bias_gradient) {                                                              \
    Plan plan(numbers);                                                                                                 \
    const Layout layout(plan);                                                                                          \
    backward<T>({layout, rotations, graph_of, rows, graphs, *epsilon, int(threads)}, features, weight, biased, means,   \
                sizes, gradient, feature_gradient, weight_gradient, bias_gradient);                                     \
  }
DEFINE(float, float32)
DEFINE(double, float64)
