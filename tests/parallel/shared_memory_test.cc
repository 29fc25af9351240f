#include "parallel/comm/shared_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace cairn {
namespace {

TEST(SharedMemory, AnotherProcessSeesIt) {
  const auto memory = SharedMemory::Create(1 << 20);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ((*memory)->data()[12345], 0);
  const SharedMemory::Address address = (*memory)->address();
  const pid_t child = fork();
  if (child == 0) {
    const auto attached = SharedMemory::Attach(address);
    if (!attached.ok()) _exit(1);
    (*attached)->data()[12345] = 7;
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ((*memory)->data()[12345], 7);
}

TEST(SharedMemory, RefusesWhatIsNotThere) {
  auto memory = SharedMemory::Create(4096);
  ASSERT_TRUE(memory.ok()) << memory.status();
  SharedMemory::Address address = (*memory)->address();
  const auto reason = [](const SharedMemory::Address& wrong) {
    const absl::Status status = SharedMemory::Attach(wrong).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    return std::string(status.message());
  };
  SharedMemory::Address wrong = address;
  wrong.nonce[0] ^= 1;
  EXPECT_THAT(reason(wrong), testing::HasSubstr("another process namespace"));
  wrong = address;
  wrong.bytes += 4096;
  EXPECT_THAT(reason(wrong), testing::HasSubstr("not the memory that was made"));
  (*memory)->CloseDoor();
  EXPECT_THAT(reason(address), testing::HasSubstr("open /proc/"));
}

}  // namespace
}  // namespace cairn
