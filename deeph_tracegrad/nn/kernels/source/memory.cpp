// What a training step gives back stays with the process for the next step: memory that the system hands out anew is
// cleared and mapped page by page, which takes up to a tenth of a step.
#include <cstdlib>

#if defined(__GLIBC__)
#include <malloc.h>

namespace {

// The second is the most that glibc itself would choose; once one is set, it chooses neither.
constexpr int kKeptBytes = 1 << 30, kMappedAloneBytes = 1 << 25;

__attribute__((constructor)) void keep_freed_memory() {
  if (std::getenv("MALLOC_TRIM_THRESHOLD_") || std::getenv("MALLOC_MMAP_THRESHOLD_")) return;  // the user has chosen
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
  mallopt(M_MMAP_THRESHOLD, kMappedAloneBytes);
}

}  // namespace
#endif
