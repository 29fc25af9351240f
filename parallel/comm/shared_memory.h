// Memory that processes of one host share: zeroed, unnamed (a memfd), gone with the last process that maps it, however
// they end. Pages cost memory when first touched, so that a generous size is free.
//
// Why not MPI_Win_allocate_shared: freeing a window waits for all its ranks, which is no way to leave a group after an
// error; and it lives in /dev/shm, which containers often limit to 64 MiB (beyond which a write is a SIGBUS).
#ifndef CAIRN_PARALLEL_COMM_SHARED_MEMORY_H_
#define CAIRN_PARALLEL_COMM_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace cairn {

class SharedMemory {
 public:
  // Where another process of this host finds it, while the creator keeps it open. Plain data, to be sent as bytes.
  struct Address {
    int64_t pid = 0;
    int64_t fd = -1;
    uint64_t nonce[2] = {};  // in the memory's first bytes: a pid of another namespace leads elsewhere
    uint64_t bytes = 0;      // of the whole, with the page that holds the nonce
  };

  // RESOURCE_EXHAUSTED with the system's reason.
  static absl::StatusOr<std::unique_ptr<SharedMemory>> Create(size_t bytes);
  // UNAVAILABLE where the two processes cannot share memory.
  static absl::StatusOr<std::unique_ptr<SharedMemory>> Attach(const Address& address);
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  uint8_t* data() const;  // page-aligned
  const Address& address() const { return address_; }
  // After this nobody can attach.
  void CloseDoor();

 private:
  SharedMemory(uint8_t* map, const Address& address) : map_(map), address_(address) {}

  uint8_t* const map_;
  Address address_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_SHARED_MEMORY_H_
