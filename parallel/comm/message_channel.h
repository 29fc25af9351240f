// What control channels share once messages arrive: Barrier and AllGather out of messages, and how a split is laid out.
#ifndef CAIRN_PARALLEL_COMM_MESSAGE_CHANNEL_H_
#define CAIRN_PARALLEL_COMM_MESSAGE_CHANNEL_H_

#include <string>
#include <vector>

#include "parallel/comm/control_channel.h"

namespace cairn {

class MessageChannel : public ControlChannel {
 public:
  absl::Status Send(int destination, int tag, std::string bytes) final;
  absl::StatusOr<ControlMessage> Recv(int source, int tag, double timeout_seconds) final;
  absl::StatusOr<std::optional<ControlMessage>> TryRecv(int source, int tag) final;
  absl::Status Barrier() final;
  absl::StatusOr<std::vector<std::string>> AllGather(const std::string& bytes) final;

 protected:
  // `timeout_seconds` limits the waits of Barrier, AllGather and the splits; zero is no limit.
  explicit MessageChannel(double timeout_seconds) : timeout_seconds_(timeout_seconds) {}

  // The checked halves of Send, Recv and TryRecv. Negative tags are the channel's own. `operation` names the wait in
  // errors.
  virtual absl::Status Post(int destination, int tag, std::string bytes) = 0;
  virtual absl::StatusOr<ControlMessage> Take(const char* operation, int source, int tag, double timeout_seconds) = 0;
  virtual absl::StatusOr<std::optional<ControlMessage>> TryTake(int source, int tag) = 0;

  // Collective: the parent ranks of this rank's color, ordered by key, then by parent rank.
  absl::StatusOr<std::vector<int>> ExchangeColors(const char* operation, int color, int key);

  double timeout_seconds() const { return timeout_seconds_; }

 private:
  absl::StatusOr<std::vector<std::string>> Exchange(const char* operation, const std::string& bytes);
  absl::Status CheckMessage(const char* operation, int peer, int tag) const;

  const double timeout_seconds_;
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_MESSAGE_CHANNEL_H_
