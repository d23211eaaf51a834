// DeepH-E3's layer norm over whole graphs (nn/norm.py), with the sum with the skipped features. Between its stages the
// caller sums over the ranks that have rows of a graph.
#include <cmath>

#include "layout.hpp"

namespace {

struct Arguments {
  Layout layout;
  const int64_t* rotations;  // null for atoms
  const int64_t* graph_of;
  int64_t rows, graphs;
  int threads;
};

struct Sums {
  std::vector<int64_t> start;  // of each group's components
  int64_t size = 0, scalars = 0;  // scalars: groups, the first ones
  explicit Sums(const Layout& layout) {
    for (const Group& group : layout.groups) {
      start.push_back(size);
      size += group.size();
      scalars += group.degree == 0;
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

// out: (graphs, sums), of the rows' means over channels, in global coordinates.
template <class T>
void sum_means(const Arguments& a, const T* features, double* out) {
  const Layout& layout = a.layout;
  const Sums sums(layout);
  const std::vector<double> totals = summed(a, a.graphs * sums.size, [&](int64_t r, double* total) {
    double values[kLargestSize];
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      const Group& group = layout.groups[g];
      for (int64_t p = 0; p < group.size(); ++p)
        values[p] = sum_of(features + r * layout.dim + group.place[p], group.channels) / group.channels;
      add_global<T>(a, group, r, values, total + a.graph_of[r] * sums.size + sums.start[g]);
    }
  });
  std::copy(totals.begin(), totals.end(), out);
}

// out: (graphs, scalars), of the rows' mean squares over channels. means: (graphs, sums), of the graphs.
template <class T>
void sum_squares(const Arguments& a, const T* features, const double* means, double* out) {
  const Layout& layout = a.layout;
  const Sums sums(layout);
  const std::vector<double> totals = summed(a, a.graphs * sums.scalars, [&](int64_t r, double* total) {
    for (int64_t g = 0; g < sums.scalars; ++g) {
      const Group& group = layout.groups[g];
      const T* values = features + r * layout.dim + group.place[0];
      const T mean = means[a.graph_of[r] * sums.size + sums.start[g]];
      T sum = 0;
      for (int64_t c = 0; c < group.channels; ++c) sum += (values[c] - mean) * (values[c] - mean);
      total[a.graph_of[r] * sums.scalars + g] += sum / double(group.channels);
    }
  });
  std::copy(totals.begin(), totals.end(), out);
}

// sizes: (graphs, scalars), what scalars are divided by.
template <class T>
void forward(const Arguments& a, const T* features, const T* weight, const T* bias, int64_t biased, const T* skip,
             const double* means, const double* sizes, T* out) {
  const Layout& layout = a.layout;
  const Sums sums(layout);
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (int64_t r = 0; r < a.rows; ++r) {
    T local[kLargestSize];
    for (int64_t g = 0; g < int64_t(layout.groups.size()); ++g) {
      const Group& group = layout.groups[g];
      into_frame<T>(a, group, r, means + a.graph_of[r] * sums.size + sums.start[g], local);
      const T inverse = g < sums.scalars ? 1.0 / sizes[a.graph_of[r] * sums.scalars + g] : 1.0;
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

// out: (graphs, sums + scalars), the gradients of the means, then the products of gradients and centred scalars.
// weight_gradient (C) and bias_gradient are those of these rows.
template <class T>
void sum_gradients(const Arguments& a, const T* features, const T* weight, int64_t biased, const double* means,
                   const double* sizes, const T* gradient, double* out, T* weight_gradient, T* bias_gradient) {
  const Layout& layout = a.layout;
  const Sums sums(layout);
  const int64_t width = sums.size + sums.scalars, weights = a.graphs * width, biases = weights + layout.channels;
  const std::vector<double> totals = summed(a, biases + biased, [&](int64_t r, double* total) {
    static thread_local Scratch<T> weight_memory;
    T* weight_sums = cleared(weight_memory, layout.channels);
    T local[kLargestSize];
    double values[kLargestSize];
    const int64_t graph = a.graph_of[r];
    for (int64_t g = 0; g < int64_t(layout.groups.size()); ++g) {
      const Group& group = layout.groups[g];
      into_frame<T>(a, group, r, means + graph * sums.size + sums.start[g], local);
      const T inverse = g < sums.scalars ? 1.0 / sizes[graph * sums.scalars + g] : 1.0;
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
      if (g < sums.scalars) total[graph * width + sums.size + g] += product;
      add_global<T>(a, group, r, values, total + graph * width + sums.start[g]);
    }
    for (int64_t c = 0; c < layout.channels; ++c) total[weights + c] += weight_sums[c];
    for (int64_t c = 0; c < biased; ++c) total[biases + c] += gradient[r * layout.dim + c];
  });
  std::copy_n(totals.begin(), weights, out);
  for (int64_t c = 0; c < layout.channels; ++c) weight_gradient[c] = totals[weights + c];
  for (int64_t c = 0; c < biased; ++c) bias_gradient[c] = totals[biases + c];
}

// counts: (graphs), rows of each. totals: as `sum_gradients` gives them, of all rows.
template <class T>
void backward(const Arguments& a, const T* features, const T* weight, const double* means, const double* sizes,
              const T* gradient, const double* counts, const double* totals, double epsilon, T* feature_gradient) {
  const Layout& layout = a.layout;
  const Sums sums(layout);
  const int64_t width = sums.size + sums.scalars;
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (int64_t r = 0; r < a.rows; ++r) {
    T local[kLargestSize], shift[kLargestSize];
    double mean_gradient[kLargestSize];
    const int64_t graph = a.graph_of[r];
    for (int64_t g = 0; g < int64_t(layout.groups.size()); ++g) {
      const Group& group = layout.groups[g];
      const double values = counts[graph] * group.channels;
      into_frame<T>(a, group, r, means + graph * sums.size + sums.start[g], local);
      for (int64_t p = 0; p < group.size(); ++p) mean_gradient[p] = totals[graph * width + sums.start[g] + p] / values;
      into_frame<T>(a, group, r, mean_gradient, shift);
      T inverse = 1, pull = 0;
      if (g < sums.scalars) {
        const double size = sizes[graph * sums.scalars + g], spread = size - epsilon;
        inverse = 1.0 / size;
        // of the size: d size / d x = centred / (values (size - epsilon))
        if (spread > 0.0) pull = totals[graph * width + sums.size + g] / (size * size * spread * values);
      }
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

Arguments told(const int64_t* numbers, const int64_t* rotations, const int64_t* graph_of, int64_t rows, int64_t graphs,
               int64_t threads) {
  Plan plan(numbers);
  return {Layout(plan), rotations, graph_of, rows, graphs, int(threads)};
}

}  // namespace

#define WHERE                                                                                                           \
  const int64_t *numbers, const int64_t *rotations, const int64_t *graph_of, int64_t rows, int64_t graphs, int64_t threads
#define TOLD told(numbers, rotations, graph_of, rows, graphs, threads)
#define DEFINE(T, NAME)                                                                                                 \
  extern "C" void norm_means_##NAME(WHERE, const T* features, double* out) { sum_means<T>(TOLD, features, out); }       \
  extern "C" void norm_squares_##NAME(WHERE, const T* features, const double* means, double* out) {                     \
    sum_squares<T>(TOLD, features, means, out);                                                                         \
  }                                                                                                                     \
  extern "C" void norm_forward_##NAME(WHERE, const T* features, const T* weight, const T* bias, int64_t biased,         \
                                      const T* skip, const double* means, const double* sizes, T* out) {                \
    forward<T>(TOLD, features, weight, bias, biased, skip, means, sizes, out);                                          \
  }                                                                                                                     \
  extern "C" void norm_gradients_##NAME(WHERE, const T* features, const T* weight, int64_t biased, const double* means, \
                                        const double* sizes, const T* gradient, double* out, T* weight_gradient,        \
                                        T* bias_gradient) {                                                             \
    sum_gradients<T>(TOLD, features, weight, biased, means, sizes, gradient, out, weight_gradient, bias_gradient);      \
  }                                                                                                                     \
  extern "C" void norm_backward_##NAME(WHERE, const T* features, const T* weight, const double* means,                  \
                                       const double* sizes, const T* gradient, const double* counts,                    \
                                       const double* totals, const double* epsilon, T* feature_gradient) {              \
    backward<T>(TOLD, features, weight, means, sizes, gradient, counts, totals, *epsilon, feature_gradient);            \
  }
DEFINE(float, float32)
DEFINE(double, float64)
