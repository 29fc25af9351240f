#include "parallel/comm/thread_group.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"

namespace cairn {

ThreadWorld::ThreadWorld(int size, double timeout_seconds)
    : timeout_seconds(timeout_seconds), wake(size), finished(size, false) {}

void ThreadWorld::Fail(const absl::Status& reason) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (failure.ok()) failure = reason;
  for (std::condition_variable& rank : wake) rank.notify_all();
}

void ThreadWorld::Finish(int rank) {
  const std::lock_guard<std::mutex> lock(mutex);
  finished[rank] = true;
  for (std::condition_variable& other : wake) other.notify_all();
}

ThreadGroup::ThreadGroup(std::shared_ptr<ThreadWorld> world, std::vector<int> members)
    : world_(std::move(world)), members_(std::move(members)), mailboxes_(members_.size()) {}

absl::Status ThreadGroup::Post(int from, int to, int tag, Payload bytes) {
  const std::lock_guard<std::mutex> lock(world_->mutex);
  if (!world_->failure.ok()) return world_->failure;
  mailboxes_[to][tag].push_back({from, std::move(bytes)});
  world_->wake[members_[to]].notify_all();
  return absl::OkStatus();
}

std::optional<ThreadGroup::Letter> ThreadGroup::Find(int from, int to, int tag) {
  const auto box = mailboxes_[to].find(tag);
  if (box == mailboxes_[to].end()) return std::nullopt;
  std::deque<Letter>& letters = box->second;
  const auto letter = std::find_if(letters.begin(), letters.end(),
                                   [&](const Letter& l) { return from == kAnySource || l.source == from; });
  if (letter == letters.end()) return std::nullopt;
  Letter found = std::move(*letter);
  letters.erase(letter);
  return found;
}

bool ThreadGroup::AllFinished(int from, int to) const {
  if (from != kAnySource) return world_->finished[members_[from]];
  for (int rank = 0; rank < size(); ++rank) {
    if (rank != to && !world_->finished[members_[rank]]) return false;
  }
  return size() > 1;
}

absl::StatusOr<ThreadGroup::Letter> ThreadGroup::Take(const char* operation, int from, int to, int tag,
                                                      double timeout_seconds) {
  const auto peer = [&] { return from == kAnySource ? std::string("any rank") : absl::StrCat("rank ", from); };
  const auto deadline =
      std::chrono::steady_clock::now() +
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(timeout_seconds));
  std::unique_lock<std::mutex> lock(world_->mutex);
  std::condition_variable& wake = world_->wake[members_[to]];
  for (;;) {
    if (std::optional<Letter> letter = Find(from, to, tag)) return *std::move(letter);
    if (!world_->failure.ok()) return world_->failure;
    if (AllFinished(from, to)) {
      return absl::UnavailableError(
          absl::StrCat(operation, " on rank ", to, " of ", size(), ": ", peer(), " has finished and sends no more"));
    }
    if (timeout_seconds == 0) {
      wake.wait(lock);
    } else if (wake.wait_until(lock, deadline) == std::cv_status::timeout) {
      if (std::optional<Letter> letter = Find(from, to, tag)) return *std::move(letter);
      return absl::DeadlineExceededError(
          absl::StrCat(operation, " on rank ", to, " of ", size(), ": waited ", timeout_seconds, " s for ", peer()));
    }
  }
}

absl::StatusOr<std::optional<ThreadGroup::Letter>> ThreadGroup::TryTake(int from, int to, int tag) {
  const std::lock_guard<std::mutex> lock(world_->mutex);
  if (std::optional<Letter> letter = Find(from, to, tag)) return letter;
  if (!world_->failure.ok()) return world_->failure;
  return std::optional<Letter>();
}

std::shared_ptr<ThreadGroup> ThreadGroup::Subgroup(int sequence, const std::vector<int>& parent_ranks) {
  const std::lock_guard<std::mutex> lock(world_->mutex);
  const std::pair<int, int> name(sequence, parent_ranks.front());
  Pending& pending = pending_[name];
  if (pending.group == nullptr) {
    std::vector<int> world_ranks;
    for (int rank : parent_ranks) world_ranks.push_back(members_[rank]);
    pending.group = std::make_shared<ThreadGroup>(world_, std::move(world_ranks));
    pending.to_collect = static_cast<int>(parent_ranks.size());
  }
  const std::shared_ptr<ThreadGroup> group = pending.group;
  if (--pending.to_collect == 0) pending_.erase(name);
  return group;
}

}  // namespace cairn
