#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace cairn::cuda {
namespace {

#if CAIRN_CUDA_EMULATED

absl::StatusOr<CublasLt> LoadOnce() {
  CublasLt library;
#define CAIRN_TAKE_(name) library.name = &cublasLt##name;
  CAIRN_CUBLASLT_FUNCTIONS(CAIRN_TAKE_)
#undef CAIRN_TAKE_
  return library;
}

#else

absl::StatusOr<CublasLt> LoadOnce() {
  const std::string file = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return absl::NotFoundError(absl::StrCat("cannot load ", file, " (", dlerror(),
                                            "): install CUDA's libraries or put their folder on LD_LIBRARY_PATH"));
  }
  CublasLt library;
#define CAIRN_TAKE_(name)                                                                      \
  library.name = reinterpret_cast<decltype(&cublasLt##name)>(dlsym(handle, "cublasLt" #name)); \
  if (library.name == nullptr) return absl::NotFoundError(absl::StrCat(file, ": ", dlerror()));
  CAIRN_CUBLASLT_FUNCTIONS(CAIRN_TAKE_)
#undef CAIRN_TAKE_
  return library;
}

#endif

}  // namespace

absl::StatusOr<const CublasLt*> CublasLt::Load() {
  static const absl::StatusOr<CublasLt>& loaded = *new absl::StatusOr<CublasLt>(LoadOnce());
  if (!loaded.ok()) return loaded.status();
  return &*loaded;
}

}  // namespace cairn::cuda
