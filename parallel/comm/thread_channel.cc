#include "parallel/comm/thread_channel.h"

#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "parallel/comm/message_channel.h"
#include "parallel/comm/thread_communicator.h"
#include "parallel/comm/thread_group.h"

namespace cairn {
namespace {

class ThreadChannel : public MessageChannel {
 public:
  ThreadChannel(std::shared_ptr<ThreadGroup> group, int rank)
      : MessageChannel(group->world().timeout_seconds), group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  int local_rank() const override { return rank_; }
  int local_size() const override { return size(); }
  std::string host() const override {
    char name[256] = "localhost";
    gethostname(name, sizeof(name) - 1);
    return name;
  }

  absl::StatusOr<std::unique_ptr<ControlChannel>> Split(int color, int key) override {
    CAIRN_ASSIGN_OR_RETURN(auto joined, Join("Split", color, key));
    return std::make_unique<ThreadChannel>(std::move(joined.first), joined.second);
  }

  absl::StatusOr<std::unique_ptr<Communicator>> SplitCommunicator(int color, int key) override {
    CAIRN_ASSIGN_OR_RETURN(auto joined, Join("SplitCommunicator", color, key));
    return std::make_unique<ThreadCommunicator>(std::move(joined.first), joined.second);
  }

  void Abort(int exit_code, const std::string& message) override {
    const int world_rank = group_->world_rank(rank_);
    std::fprintf(stderr, "cairn: rank %d (host %s): %s\n", world_rank, host().c_str(), message.c_str());
    std::fflush(stderr);
    group_->world().Fail(absl::UnavailableError(
        absl::StrCat("rank ", world_rank, " ended the job with exit code ", exit_code, ": ", message)));
  }

  void Finish(const absl::Status& result) {
    const int world_rank = group_->world_rank(rank_);
    if (!result.ok()) {
      group_->world().Fail(
          absl::UnavailableError(absl::StrCat("rank ", world_rank, " failed: ", absl::string_view(result.message()))));
    }
    group_->world().Finish(world_rank);
  }

 private:
  absl::Status Post(int destination, int tag, std::string bytes) override {
    return group_->Post(rank_, destination, tag, std::make_shared<const std::string>(std::move(bytes)));
  }

  absl::StatusOr<ControlMessage> Take(const char* operation, int source, int tag, double timeout_seconds) override {
    CAIRN_ASSIGN_OR_RETURN(const ThreadGroup::Letter letter,
                           group_->Take(operation, source, rank_, tag, timeout_seconds));
    return ControlMessage{letter.source, *letter.bytes};
  }

  absl::StatusOr<std::optional<ControlMessage>> TryTake(int source, int tag) override {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<ThreadGroup::Letter> letter, group_->TryTake(source, rank_, tag));
    if (!letter.has_value()) return std::optional<ControlMessage>();
    return std::optional<ControlMessage>(ControlMessage{letter->source, *letter->bytes});
  }

  // This rank's group of the next split, and its rank there.
  absl::StatusOr<std::pair<std::shared_ptr<ThreadGroup>, int>> Join(const char* operation, int color, int key) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<int> ranks, ExchangeColors(operation, color, key));
    int new_rank = 0;
    while (ranks[new_rank] != rank_) ++new_rank;
    return std::make_pair(group_->Subgroup(splits_++, ranks), new_rank);
  }

  const std::shared_ptr<ThreadGroup> group_;
  const int rank_;
  int splits_ = 0;
};

std::vector<std::unique_ptr<ThreadChannel>> MakeChannels(int size, double timeout_seconds) {
  CAIRN_CHECK(size >= 1, "a world of ", size);
  const auto world = std::make_shared<ThreadWorld>(size, timeout_seconds);
  std::vector<int> members(size);
  for (int rank = 0; rank < size; ++rank) members[rank] = rank;
  const auto group = std::make_shared<ThreadGroup>(world, std::move(members));
  std::vector<std::unique_ptr<ThreadChannel>> channels;
  for (int rank = 0; rank < size; ++rank) channels.push_back(std::make_unique<ThreadChannel>(group, rank));
  return channels;
}

}  // namespace

std::vector<std::unique_ptr<ControlChannel>> MakeThreadWorld(int size, double timeout_seconds) {
  std::vector<std::unique_ptr<ControlChannel>> channels;
  for (auto& channel : MakeChannels(size, timeout_seconds)) channels.push_back(std::move(channel));
  return channels;
}

std::unique_ptr<ControlChannel> MakeSingleRankWorld() { return std::move(MakeThreadWorld(1)[0]); }

std::vector<absl::Status> RunThreadRanks(int size, absl::FunctionRef<absl::Status(ControlChannel&)> body,
                                         double timeout_seconds) {
  const std::vector<std::unique_ptr<ThreadChannel>> channels = MakeChannels(size, timeout_seconds);
  std::vector<absl::Status> results(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      results[rank] = body(*channels[rank]);
      channels[rank]->Finish(results[rank]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

}  // namespace cairn
