// A world whose communicators speak between GPUs, for the conformance checks, which know host memory alone: operands go
// to this rank's GPU, results come back.
#ifndef CAIRN_TESTS_PARALLEL_DEVICE_WORLD_H_
#define CAIRN_TESTS_PARALLEL_DEVICE_WORLD_H_

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/copy.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/nccl_communicator.h"

namespace cairn {

class DeviceCopies : public Communicator {
 public:
  DeviceCopies(Context& context, std::unique_ptr<Communicator> device)
      : context_(context), device_(std::move(device)) {}

  int rank() const override { return device_->rank(); }
  int size() const override { return device_->size(); }

  absl::Status AllReduce(const Tensor& data, ReduceOp op) override {
    const Tensor there = Copied(data, 0);
    CAIRN_RETURN_IF_ERROR(device_->AllReduce(there, op));
    return BringBack(there, data);
  }
  absl::Status AllGather(const Tensor& in, const Tensor& out) override {
    const Tensor there = Copied(out, 1);
    CAIRN_RETURN_IF_ERROR(device_->AllGather(Copied(in, 0), there));
    return BringBack(there, out);
  }
  absl::Status Gather(const Tensor& in, const Tensor& out, int root) override {
    const Tensor there = Copied(out, 1);
    CAIRN_RETURN_IF_ERROR(device_->Gather(Copied(in, 0), there, root));
    return rank() == root ? BringBack(there, out) : device_->Synchronize();
  }
  absl::Status Broadcast(const Tensor& data, int root) override {
    const Tensor there = Copied(data, 0);
    CAIRN_RETURN_IF_ERROR(device_->Broadcast(there, root));
    return BringBack(there, data);
  }
  // Not waited for: a sender goes on.
  absl::Status Send(const Tensor& data, int destination) override {
    return device_->Send(Copied(data, 0), destination);
  }
  absl::Status Recv(const Tensor& data, int source) override {
    const Tensor there = Copied(data, 0);
    CAIRN_RETURN_IF_ERROR(device_->Recv(there, source));
    return BringBack(there, data);
  }

 private:
  // The tensor's like on the GPU, with its values, its strides and its faults.
  Tensor Copied(const Tensor& host, int which) {
    if (!host.device().is_cpu()) {
      return Tensor(host.raw(), host.dtype(), {host.num_elements()}, Device{DeviceKind::kCuda, 99});
    }
    if (host.raw() == nullptr) return Tensor(nullptr, host.dtype(), {host.num_elements()}, context_.device());
    const bool strided = !host.is_contiguous();
    const int64_t rows = host.rank() > 0 ? host.dim(0) : 1;
    const size_t bytes =
        strided ? static_cast<size_t>(rows * host.row_stride()) * DTypeSize(host.dtype()) : host.size_bytes();
    Buffer& memory = memory_[which];
    if (memory.size_bytes() < bytes || memory.data() == nullptr) {
      // The old one may still be read: freeing it would wait for that.
      outgrown_.push_back(std::move(memory));
      memory = Buffer::Allocate(context_.device(), std::max<size_t>(2 * bytes, 4096)).value();
    }
    if (strided) {
      return Tensor(memory.data(), host.dtype(), {rows, host.row_stride()}, context_.device())
          .Columns(0, host.row_elements());
    }
    const Tensor there(memory.data(), host.dtype(), {host.num_elements()}, context_.device());
    if (bytes > 0) CopyFromHost(context_, host.raw(), there);
    return there;
  }

  absl::Status BringBack(const Tensor& there, const Tensor& host) {
    CAIRN_RETURN_IF_ERROR(device_->Synchronize());
    if (there.num_elements() > 0) CopyToHost(context_, there, host.raw());
    return absl::OkStatus();
  }

  Context& context_;
  Buffer memory_[2];
  std::vector<Buffer> outgrown_;
  std::unique_ptr<Communicator> device_;  // ends before its operands
};

// `inner` for messages and groups; every communicator by NCCL.
class DeviceWorld : public ControlChannel {
 public:
  DeviceWorld(ControlChannel& inner, Context& context, const NcclLibrary* library, double timeout_seconds)
      : inner_(inner), context_(context), library_(library), timeout_seconds_(timeout_seconds) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  absl::Status Send(int destination, int tag, std::string bytes) override {
    return inner_.Send(destination, tag, std::move(bytes));
  }
  absl::StatusOr<ControlMessage> Recv(int source, int tag, double timeout_seconds) override {
    return inner_.Recv(source, tag, timeout_seconds);
  }
  absl::StatusOr<std::optional<ControlMessage>> TryRecv(int source, int tag) override {
    return inner_.TryRecv(source, tag);
  }
  absl::Status Barrier() override { return inner_.Barrier(); }
  absl::StatusOr<std::vector<std::string>> AllGather(const std::string& bytes) override {
    return inner_.AllGather(bytes);
  }
  absl::StatusOr<std::unique_ptr<ControlChannel>> Split(int color, int key) override {
    return inner_.Split(color, key);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> SplitCommunicator(int color, int key) override {
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<ControlChannel> control, inner_.Split(color, key));
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> host, inner_.SplitCommunicator(color, key));
    CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> device,
                           NcclCommunicator::Create(library_, std::make_shared<NcclStream>(context_, timeout_seconds_),
                                                    NcclUse::kPipeline, std::move(control), std::move(host)));
    return std::make_unique<DeviceCopies>(context_, std::move(device));
  }
  int local_rank() const override { return inner_.local_rank(); }
  int local_size() const override { return inner_.local_size(); }
  std::string host() const override { return inner_.host(); }
  void Abort(int exit_code, const std::string& message) override { inner_.Abort(exit_code, message); }

 private:
  ControlChannel& inner_;
  Context& context_;
  const NcclLibrary* library_;
  const double timeout_seconds_;
};

}  // namespace cairn

#endif  // CAIRN_TESTS_PARALLEL_DEVICE_WORLD_H_
