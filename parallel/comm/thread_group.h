// The mailboxes of ranks that are threads of one process. One ThreadWorld per job, one ThreadGroup per group of ranks.
#ifndef CAIRN_PARALLEL_COMM_THREAD_GROUP_H_
#define CAIRN_PARALLEL_COMM_THREAD_GROUP_H_

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cairn {

// What all groups share: one lock, a wake-up per rank, and the reason why the job is over.
struct ThreadWorld {
  ThreadWorld(int size, double timeout_seconds);

  // The first failure stays; every pending and later call of every rank returns it.
  void Fail(const absl::Status& reason);
  // `rank` (of the world) will send nothing more: whoever waits for it gets an error instead of waiting for ever.
  void Finish(int rank);

  const double timeout_seconds;  // of collectives and tensor Recv; zero is no limit
  std::mutex mutex;
  std::deque<std::condition_variable> wake;  // by world rank
  absl::Status failure;
  std::vector<bool> finished;
};

class ThreadGroup {
 public:
  static constexpr int kAnySource = -1;
  using Payload = std::shared_ptr<const std::string>;
  struct Letter {
    int source = 0;
    Payload bytes;
  };

  // `members`: world rank of each rank of the group.
  ThreadGroup(std::shared_ptr<ThreadWorld> world, std::vector<int> members);

  int size() const { return static_cast<int>(members_.size()); }
  int world_rank(int rank) const { return members_[rank]; }
  ThreadWorld& world() const { return *world_; }

  absl::Status Post(int from, int to, int tag, Payload bytes);
  // Waits; `operation` and the ranks are named in the error. A zero timeout waits for ever.
  absl::StatusOr<Letter> Take(const char* operation, int from, int to, int tag, double timeout_seconds);
  absl::StatusOr<std::optional<Letter>> TryTake(int from, int to, int tag);

  // The group that the parent ranks `parent_ranks` form in this group's `sequence`-th split: the same object for each
  // of them, whoever asks first.
  std::shared_ptr<ThreadGroup> Subgroup(int sequence, const std::vector<int>& parent_ranks);

 private:
  // With the world's lock held.
  std::optional<Letter> Find(int from, int to, int tag);
  bool AllFinished(int from, int to) const;

  struct Pending {
    std::shared_ptr<ThreadGroup> group;
    int to_collect = 0;  // members that have not asked for it yet
  };

  const std::shared_ptr<ThreadWorld> world_;
  const std::vector<int> members_;
  std::vector<std::map<int, std::deque<Letter>>> mailboxes_;  // [receiver][tag], in order of arrival
  std::map<std::pair<int, int>, Pending> pending_;            // by (sequence, first parent rank)
};

}  // namespace cairn

#endif  // CAIRN_PARALLEL_COMM_THREAD_GROUP_H_
