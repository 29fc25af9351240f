#include "parallel/comm/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace cairn {
namespace {

constexpr size_t kFrontBytes = 4096;  // holds the nonce

std::string ErrnoText() { return std::strerror(errno); }

}  // namespace

absl::StatusOr<std::unique_ptr<SharedMemory>> SharedMemory::Create(size_t bytes) {
  Address address;
  address.pid = getpid();
  address.bytes = kFrontBytes + bytes;
  const auto fail = [&](const char* call) {
    return absl::ResourceExhaustedError(
        absl::StrCat("shared memory of ", address.bytes, " bytes: ", call, ": ", ErrnoText()));
  };
  if (getrandom(address.nonce, sizeof(address.nonce), 0) != sizeof(address.nonce)) return fail("getrandom");
  const int fd = memfd_create("cairn", MFD_CLOEXEC);
  if (fd < 0) return fail("memfd_create");
  address.fd = fd;
  void* map = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(address.bytes)) == 0) {
    map = mmap(nullptr, address.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (map == MAP_FAILED) {
    const absl::Status status = fail("ftruncate, mmap");
    close(fd);
    return status;
  }
  std::memcpy(map, address.nonce, sizeof(address.nonce));
  return std::unique_ptr<SharedMemory>(new SharedMemory(static_cast<uint8_t*>(map), address));
}

absl::StatusOr<std::unique_ptr<SharedMemory>> SharedMemory::Attach(const Address& address) {
  const std::string path = absl::StrCat("/proc/", address.pid, "/fd/", address.fd);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return absl::UnavailableError(absl::StrCat("open ", path, ": ", ErrnoText()));
  // Only a map of the expected size is read: beyond the end of a smaller file lies SIGBUS.
  void* map = MAP_FAILED;
  if (lseek(fd, 0, SEEK_END) == static_cast<off_t>(address.bytes)) {
    map = mmap(nullptr, address.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  close(fd);
  if (map == MAP_FAILED) return absl::UnavailableError(absl::StrCat("map ", path, ": not the memory that was made"));
  if (std::memcmp(map, address.nonce, sizeof(address.nonce)) != 0) {
    munmap(map, address.bytes);
    return absl::UnavailableError(absl::StrCat(path, " belongs to another process namespace"));
  }
  Address attached = address;
  attached.fd = -1;
  return std::unique_ptr<SharedMemory>(new SharedMemory(static_cast<uint8_t*>(map), attached));
}

SharedMemory::~SharedMemory() {
  CloseDoor();
  munmap(map_, address_.bytes);
}

uint8_t* SharedMemory::data() const { return map_ + kFrontBytes; }

void SharedMemory::CloseDoor() {
  if (address_.fd >= 0) close(static_cast<int>(address_.fd));
  address_.fd = -1;
}

}  // namespace cairn
