// The mailbox with threads as the ranks of the host: what the thread sanitizer can watch.
#include "parallel/comm/host_mailbox.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>

namespace cairn {
namespace {

// Shared zeroed memory for `size` ranks.
class Memory {
 public:
  Memory(int size, size_t arena_bytes) {
    const size_t bytes = (HostMailbox::BytesFor(size, arena_bytes) + 4095) / 4096 * 4096;
    data_ = static_cast<uint8_t*>(std::aligned_alloc(4096, bytes));
    std::memset(data_, 0, bytes);
  }
  ~Memory() { std::free(data_); }
  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_;
};

std::string Text(int seed, size_t length) {
  std::string text(length, '\0');
  std::mt19937 rng(static_cast<uint32_t>(seed));
  for (char& c : text) c = static_cast<char>(rng());
  return text;
}

// Takes the pieces that are there; true when `text` is a whole message.
bool Take(HostMailbox& mailbox, int from, std::string* text, int* tag) {
  MessagePiece piece;
  while (mailbox.Front(from, &piece)) {
    text->append(reinterpret_cast<const char*>(piece.data), piece.bytes);
    *tag = piece.tag;
    const bool whole = text->size() == piece.message_bytes;
    mailbox.Pop(from);
    if (whole) return true;
  }
  return false;
}

constexpr size_t kArena = 16 << 10;  // pieces of 4 KiB: messages below wrap, fill and overflow it

TEST(HostMailbox, HoldsMoreThanItsArena) {
  const Memory memory(2, kArena);
  HostMailbox sender(memory.data(), 0, 2, kArena), receiver(memory.data(), 1, 2, kArena);
  const std::string large = Text(1, 10 * kArena);
  sender.Send(1, 3, large.data(), large.size());
  sender.Send(1, 4, "", 0);
  sender.Send(1, 5, "tail", 4);
  EXPECT_EQ(sender.num_pending(), 3u);
  EXPECT_FALSE(sender.Flush()) << "the receiver has read nothing";
  for (const auto& [expected, expected_tag] :
       {std::pair(large, 3), std::pair(std::string(), 4), std::pair(std::string("tail"), 5)}) {
    std::string text;
    int tag = 0;
    while (!Take(receiver, 0, &text, &tag)) sender.Flush();
    EXPECT_EQ(text, expected);
    EXPECT_EQ(tag, expected_tag);
  }
  EXPECT_TRUE(sender.Flush());
  EXPECT_EQ(sender.num_pending(), 0u);
}

TEST(HostMailbox, ManyEmptyMessages) {
  const Memory memory(1, kArena);
  HostMailbox self(memory.data(), 0, 1, kArena);
  for (int i = 0; i < 5000; ++i) self.Send(0, i, nullptr, 0);
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    int tag = -1;
    while (!Take(self, 0, &text, &tag)) self.Flush();
    ASSERT_EQ(tag, i);
  }
}

TEST(HostMailbox, ABacklogForOneRankDoesNotBlockAnother) {
  const Memory memory(3, kArena);
  HostMailbox sender(memory.data(), 0, 3, kArena), other(memory.data(), 2, 3, kArena);
  const std::string large = Text(1, 4 * kArena);
  sender.Send(1, 0, large.data(), large.size());
  sender.Send(2, 0, "through", 7);
  std::string text;
  int tag = 0;
  EXPECT_TRUE(Take(other, 0, &text, &tag));
  EXPECT_EQ(text, "through");
}

TEST(HostMailboxThreads, RandomSizesBothWays) {
  const Memory memory(2, kArena);
  const auto run = [&](int rank, std::string* error) {
    HostMailbox mailbox(memory.data(), rank, 2, kArena);
    std::mt19937 sizes(static_cast<uint32_t>(rank)), expected_sizes(static_cast<uint32_t>(1 - rank));
    const auto size = [](std::mt19937& rng) -> size_t { return rng() % 8 == 0 ? rng() % 40'000 : rng() % 3000; };
    int sent = 0, received = 0;
    std::string text;
    constexpr int kMessages = 2000;
    while (!mailbox.Flush() || sent < kMessages || received < kMessages) {
      if (sent < kMessages) {
        const std::string message = Text(rank * kMessages + sent, size(sizes));
        mailbox.Send(1 - rank, sent++, message.data(), message.size());
      }
      int tag = 0;
      if (!Take(mailbox, 1 - rank, &text, &tag)) {
        std::this_thread::yield();
        continue;
      }
      if (tag != received || text != Text((1 - rank) * kMessages + received, size(expected_sizes))) {
        *error = "message " + std::to_string(received) + " differs";
        return;
      }
      ++received;
      text.clear();
    }
  };
  std::string errors[2];
  std::thread other([&] { run(1, &errors[1]); });
  run(0, &errors[0]);
  other.join();
  EXPECT_EQ(errors[0], "");
  EXPECT_EQ(errors[1], "");
}

}  // namespace
}  // namespace cairn
