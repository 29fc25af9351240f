#include "parallel/comm/nccl_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace cairn {
namespace {

#if CAIRN_CUDA_EMULATED

absl::StatusOr<NcclLibrary> LoadOnce() {
  NcclLibrary library;
#define CAIRN_TAKE_(name) library.name = &nccl##name;
  CAIRN_NCCL_FUNCTIONS(CAIRN_TAKE_)
  CAIRN_NCCL_WINDOW_FUNCTIONS(CAIRN_TAKE_)
#undef CAIRN_TAKE_
  return library;
}

#else

absl::StatusOr<NcclLibrary> LoadOnce() {
  const std::string file = absl::StrCat("libnccl.so.", NCCL_MAJOR);
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return absl::NotFoundError(absl::StrCat("cannot load ", file, " (", dlerror(),
                                            "): install NCCL or put its folder on LD_LIBRARY_PATH, or use --comm=mpi"));
  }
  NcclLibrary library;
#define CAIRN_TAKE_(name) library.name = reinterpret_cast<decltype(&nccl##name)>(dlsym(handle, "nccl" #name));
  CAIRN_NCCL_FUNCTIONS(CAIRN_TAKE_)
  CAIRN_NCCL_WINDOW_FUNCTIONS(CAIRN_TAKE_)
#undef CAIRN_TAKE_
#define CAIRN_REQUIRE_(name)                                                                               \
  if (library.name == nullptr) {                                                                           \
    return absl::NotFoundError(absl::StrCat(file, " has no nccl" #name ": NCCL 2.19 or later is needed")); \
  }
  CAIRN_NCCL_FUNCTIONS(CAIRN_REQUIRE_)
#undef CAIRN_REQUIRE_
  return library;
}

#endif

}  // namespace

absl::StatusOr<const NcclLibrary*> NcclLibrary::Load() {
  static const absl::StatusOr<NcclLibrary>& loaded = *new absl::StatusOr<NcclLibrary>(LoadOnce());
  if (!loaded.ok()) return loaded.status();
  return &*loaded;
}

int NcclLibrary::Version() const {
  int code = 0;
  return GetVersion(&code) == ncclSuccess ? code : 0;
}

bool NcclLibrary::HasWindows() const {
  return CommWindowRegister != nullptr && CommWindowDeregister != nullptr && Version() >= NCCL_VERSION(2, 27, 0);
}

}  // namespace cairn
