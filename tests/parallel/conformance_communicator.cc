#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "tests/parallel/conformance.h"

namespace cairn {
namespace {

// Around the borders of whatever windows, slices and messages an implementation cuts tensors into.
const int64_t kCounts[] = {0, 1, 3, 16, 17, 1000, 8191, 8193, 65537, 140'001};

template <typename T>
Tensor Vector(std::vector<T>& values) {
  return Tensor(values.data(), DTypeOf<T>::value, {static_cast<int64_t>(values.size())});
}

// Small integers: sums of them are exact, so that equality is the test.
template <typename T>
T IntegerAt(int rank, int64_t i, int salt) {
  return static_cast<T>((rank * 131 + i * 17 + salt * 7) % 1000 - 500);
}

// Of widely different sizes: in another order their sum has other bits.
std::vector<float> RandomFloats(int rank, int64_t count, int salt) {
  uint32_t state = static_cast<uint32_t>(rank * 7919 + salt) * 2654435761u;
  std::vector<float> values(count);
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    const uint32_t exponent = (127 - state % 20) << 23;  // 2^0 down to 2^-19
    value = std::bit_cast<float>((state & 0x80000000) | exponent | (state >> 8 & 0x7fffff));
  }
  return values;
}

template <typename T>
T Reduced(T a, T b, ReduceOp op) {
  if (op == ReduceOp::kSum) return a + b;
  return op == ReduceOp::kMin ? std::min(a, b) : std::max(a, b);
}

absl::StatusOr<std::unique_ptr<Communicator>> WholeWorld(ControlChannel& world) {
  return world.SplitCommunicator(0, world.rank());
}

template <typename T>
absl::Status CheckIntegerReduce(Communicator& comm, int64_t count, ReduceOp op, int salt) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = IntegerAt<T>(comm.rank(), i, salt);
  CAIRN_RETURN_IF_ERROR(comm.AllReduce(Vector(values), op));
  for (int64_t i = 0; i < count; ++i) {
    T expected = IntegerAt<T>(0, i, salt);
    for (int rank = 1; rank < comm.size(); ++rank) expected = Reduced(expected, IntegerAt<T>(rank, i, salt), op);
    CAIRN_EXPECT(values[i] == expected, values[i], " instead of ", expected, " at ", i, " of ", count);
  }
  return absl::OkStatus();
}

// The same bits as the loop over ranks in order.
absl::Status CheckFloatSum(Communicator& comm, int64_t count, int salt) {
  std::vector<float> values = RandomFloats(comm.rank(), count, salt), expected = RandomFloats(0, count, salt);
  for (int rank = 1; rank < comm.size(); ++rank) {
    const std::vector<float> other = RandomFloats(rank, count, salt);
    for (int64_t i = 0; i < count; ++i) expected[i] += other[i];
  }
  CAIRN_RETURN_IF_ERROR(comm.AllReduce(Vector(values), ReduceOp::kSum));
  for (int64_t i = 0; i < count; ++i) {
    CAIRN_EXPECT(std::bit_cast<uint32_t>(values[i]) == std::bit_cast<uint32_t>(expected[i]), values[i], " instead of ",
                 expected[i], " at ", i, " of ", count);
  }
  return absl::OkStatus();
}

absl::Status Reductions(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  int salt = 0;
  for (int64_t count : kCounts) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kMax}) {
      if (op != ReduceOp::kSum && count > 10'000) continue;  // the paths differ by size, not by operation
      CAIRN_RETURN_IF_ERROR(CheckIntegerReduce<float>(*comm, count, op, ++salt));
      CAIRN_RETURN_IF_ERROR(CheckIntegerReduce<int64_t>(*comm, count, op, ++salt));
    }
    CAIRN_RETURN_IF_ERROR(CheckFloatSum(*comm, count, ++salt));
  }
  return absl::OkStatus();
}

// A NaN on any one rank wins, wherever it is.
absl::Status CheckSpecialValues(Communicator* comm, std::initializer_list<ReduceOp> ops) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (int64_t count : {5, 20000}) {
    for (int who = 0; who < comm->size(); ++who) {
      for (ReduceOp op : ops) {
        std::vector<float> values(count, static_cast<float>(comm->rank()));
        if (comm->rank() == who) values[1] = values[count - 1] = nan;
        values[2] = comm->rank() == who ? inf : 0;
        values[3] = comm->rank() == who ? -inf : 0;
        CAIRN_RETURN_IF_ERROR(comm->AllReduce(Vector(values), op));
        CAIRN_EXPECT(std::isnan(values[1]) && std::isnan(values[count - 1]), values[1], " ", values[count - 1]);
        CAIRN_EXPECT(!std::isnan(values[0]) && !std::isnan(values[2]) && !std::isnan(values[3]));
        if (op != ReduceOp::kMin) CAIRN_EXPECT(values[2] == inf, values[2]);
        if (op != ReduceOp::kMax) CAIRN_EXPECT(values[3] == -inf, values[3]);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status NansInMinAndMax(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  return CheckSpecialValues(comm.get(), {ReduceOp::kMin, ReduceOp::kMax});
}

// int64 compares as signed, and its sums lose no bits.
absl::Status ReductionsOfSpecialValues(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  CAIRN_RETURN_IF_ERROR(CheckSpecialValues(comm.get(), {ReduceOp::kSum}));
  constexpr int64_t kLowest = std::numeric_limits<int64_t>::min(), kHighest = std::numeric_limits<int64_t>::max();
  const bool last = comm->rank() == comm->size() - 1;
  std::vector<int64_t> low = {last ? kLowest : 1, last ? -1 : 0, last ? kHighest : 5}, high = low;
  CAIRN_RETURN_IF_ERROR(comm->AllReduce(Vector(low), ReduceOp::kMin));
  CAIRN_RETURN_IF_ERROR(comm->AllReduce(Vector(high), ReduceOp::kMax));
  const bool alone = comm->size() == 1;
  CAIRN_EXPECT(low[0] == kLowest && low[1] == -1 && low[2] == (alone ? kHighest : 5), low[0], " ", low[1], " ", low[2]);
  CAIRN_EXPECT(high[0] == (alone ? kLowest : 1) && high[1] == (alone ? -1 : 0) && high[2] == kHighest, high[0]);
  std::vector<int64_t> large(3, int64_t{1} << 53);
  large[1] += comm->rank();
  CAIRN_RETURN_IF_ERROR(comm->AllReduce(Vector(large), ReduceOp::kSum));
  const int64_t n = comm->size();
  CAIRN_EXPECT(large[1] == (n << 53) + n * (n - 1) / 2, "sums of int64 lose no bits");
  return absl::OkStatus();
}

absl::Status CheckGathers(Communicator& comm, int64_t rows, int64_t columns, int root, int salt) {
  std::vector<float> in(rows * columns);
  for (size_t i = 0; i < in.size(); ++i) in[i] = IntegerAt<float>(comm.rank(), i, salt);
  const Tensor in_tensor(in.data(), DType::kFloat32, {rows, columns});
  std::vector<float> out(in.size() * comm.size() + 1, -7);
  const Tensor out_tensor(out.data(), DType::kFloat32, {comm.size(), rows, columns});
  const auto check = [&]() -> absl::Status {
    for (int rank = 0; rank < comm.size(); ++rank) {
      for (size_t i = 0; i < in.size(); ++i) {
        CAIRN_EXPECT(out[rank * in.size() + i] == IntegerAt<float>(rank, i, salt), "part ", rank, " at ", i);
      }
    }
    CAIRN_EXPECT(out.back() == -7, "written past the end");
    return absl::OkStatus();
  };
  CAIRN_RETURN_IF_ERROR(comm.AllGather(in_tensor, out_tensor));
  CAIRN_RETURN_IF_ERROR(check());
  out.assign(out.size(), -7);
  CAIRN_RETURN_IF_ERROR(comm.Gather(in_tensor, out_tensor, root));
  if (comm.rank() == root) return check();
  for (float value : out) CAIRN_EXPECT(value == -7, "the output of a rank that is not the root was touched");
  return absl::OkStatus();
}

absl::Status CheckBroadcast(Communicator& comm, int64_t count, int root, int salt) {
  std::vector<int32_t> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = comm.rank() == root ? IntegerAt<int32_t>(root, i, salt) : -1;
  CAIRN_RETURN_IF_ERROR(comm.Broadcast(Vector(values), root));
  for (int64_t i = 0; i < count; ++i)
    CAIRN_EXPECT(values[i] == IntegerAt<int32_t>(root, i, salt), values[i], " at ", i);
  return absl::OkStatus();
}

absl::Status GathersAndBroadcasts(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  int salt = 0;
  for (int root = 0; root < comm->size(); ++root) {
    for (int64_t count : kCounts) {
      CAIRN_RETURN_IF_ERROR(CheckGathers(*comm, 1, count, root, ++salt));
      CAIRN_RETURN_IF_ERROR(CheckBroadcast(*comm, count, root, ++salt));
    }
    CAIRN_RETURN_IF_ERROR(CheckGathers(*comm, 32, 1003, root, ++salt));
  }
  // One root many times in a row: the others run ahead as far as the implementation lets them.
  for (int i = 0; i < 200; ++i) CAIRN_RETURN_IF_ERROR(CheckBroadcast(*comm, 1 + i * 37 % 1000, 0, ++salt));
  for (int i = 0; i < 200; ++i) CAIRN_RETURN_IF_ERROR(CheckGathers(*comm, 1, 1 + i * 37 % 1000, 0, ++salt));
  return absl::OkStatus();
}

// 16-bit types move as they are.
absl::Status SixteenBits(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  std::vector<uint16_t> in(999, static_cast<uint16_t>(0x3f80 + comm->rank())), out(999 * comm->size());
  const Tensor in_tensor(in.data(), DType::kBFloat16, {999});
  CAIRN_RETURN_IF_ERROR(comm->AllGather(in_tensor, Tensor(out.data(), DType::kBFloat16, {comm->size(), 999})));
  for (size_t i = 0; i < out.size(); ++i) CAIRN_EXPECT(out[i] == 0x3f80 + i / 999, out[i], " at ", i);
  CAIRN_EXPECT(absl::IsInvalidArgument(comm->AllReduce(in_tensor, ReduceOp::kSum)), "bf16 is not summed");
  return absl::OkStatus();
}

// Refused before anything is sent, so that the group is as it was.
absl::Status BadTensors(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  std::vector<float> memory(64);
  const Tensor good(memory.data(), DType::kFloat32, {4, 4});
  const Tensor strided = Tensor(memory.data(), DType::kFloat32, {4, 8}).Columns(0, 4);
  const Tensor device(memory.data(), DType::kFloat32, {4, 4}, Device{DeviceKind::kCuda, 0});
  const Tensor integers(memory.data(), DType::kInt32, {4});
  for (const Tensor& bad : {strided, device, Tensor()}) {
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->AllReduce(bad, ReduceOp::kSum)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->AllGather(bad, good)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Gather(bad, good, 0)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Broadcast(bad, 0)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Send(bad, 0)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Recv(bad, 0)));
  }
  CAIRN_EXPECT(absl::IsInvalidArgument(comm->AllReduce(integers, ReduceOp::kSum)));
  const Tensor too_large(memory.data(), DType::kFloat32, {comm->size() + 1, 4});
  const absl::Status shape = comm->AllGather(good.Rows(0, 1), too_large);
  CAIRN_EXPECT(absl::IsInvalidArgument(shape), shape.ToString());
  for (int peer : {-1, comm->size()}) {
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Gather(good, good, peer)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Broadcast(good, peer)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Send(good, peer)));
    CAIRN_EXPECT(absl::IsInvalidArgument(comm->Recv(good, peer)));
  }
  return CheckIntegerReduce<float>(*comm, 100, ReduceOp::kSum, 1);
}

// Everybody sends everything to everybody (themselves too) before anybody receives.
absl::Status SendsDoNotWait(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  const int64_t counts[] = {5, 0, 65536, 1, 100'003, 17};
  std::vector<float> values;
  for (int64_t count : counts) {
    for (int peer = 0; peer < comm->size(); ++peer) {
      values.assign(count, static_cast<float>(comm->rank() * 1000 + peer));
      CAIRN_RETURN_IF_ERROR(comm->Send(Vector(values), peer));
      values.assign(count, -1);  // Send has copied them
    }
  }
  for (int peer = comm->size() - 1; peer >= 0; --peer) {
    for (int64_t count : counts) {
      values.assign(count, -2);
      CAIRN_RETURN_IF_ERROR(comm->Recv(Vector(values), peer));
      for (float value : values) CAIRN_EXPECT(value == static_cast<float>(peer * 1000 + comm->rank()), value);
    }
  }
  return absl::OkStatus();
}

absl::Status LargeMessages(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  const int next = (comm->rank() + 1) % comm->size(), previous = (comm->rank() + comm->size() - 1) % comm->size();
  constexpr int64_t kCount = (64 << 20) / sizeof(float);
  std::vector<float> values(kCount);
  for (int message = 0; message < 2; ++message) {
    for (int64_t i = 0; i < kCount; ++i) values[i] = IntegerAt<float>(comm->rank(), i, message);
    CAIRN_RETURN_IF_ERROR(comm->Send(Vector(values), next));
  }
  for (int message = 0; message < 2; ++message) {
    CAIRN_RETURN_IF_ERROR(comm->Recv(Vector(values), previous));
    for (int64_t i = 0; i < kCount; ++i) {
      CAIRN_EXPECT(values[i] == IntegerAt<float>(previous, i, message), values[i], " at ", i);
    }
  }
  // The same bytes through the control channel.
  CAIRN_RETURN_IF_ERROR(world.Send(next, 0, std::string(kCount * 4 + 1, static_cast<char>('a' + comm->rank()))));
  CAIRN_ASSIGN_OR_RETURN(const ControlMessage text, world.Recv(previous, 0, 120));
  CAIRN_EXPECT(text.bytes == std::string(kCount * 4 + 1, static_cast<char>('a' + previous)));
  return CheckFloatSum(*comm, 3'000'017, 1);
}

absl::Status WrongSizes(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  std::vector<float> ten(10, 1), twelve(12, 2), many(100'000, 3);
  const int me = comm->rank();
  for (std::vector<float>* sent : {&ten, &many}) {
    CAIRN_RETURN_IF_ERROR(comm->Send(Vector(*sent), me));
    const absl::Status mismatch = comm->Recv(Vector(twelve), me);
    CAIRN_EXPECT(absl::IsInvalidArgument(mismatch), mismatch.ToString());
    CAIRN_EXPECT(absl::StrContains(absl::string_view(mismatch.message()), "48 bytes") &&
                     absl::StrContains(absl::string_view(mismatch.message()), absl::StrCat(4 * sent->size())),
                 mismatch.ToString());
  }
  // The wrong message is gone, the next one is read from its beginning.
  CAIRN_RETURN_IF_ERROR(comm->Send(Vector(ten), me));
  CAIRN_RETURN_IF_ERROR(comm->Recv(Vector(ten), me));
  CAIRN_EXPECT(ten[9] == 1);
  return absl::OkStatus();
}

// Any subset of the ranks in any order, made and dropped many times; several groups alive at once.
absl::Status RepeatedSplits(ControlChannel& world) {
  std::unique_ptr<Communicator> kept;
  for (int round = 0; round < 12; ++round) {
    // Keys that neither rise nor fall with the rank, so that neighbours in a group may be on different hosts.
    const int key = (world.rank() * 5 + round * 3) % 7;
    CAIRN_ASSIGN_OR_RETURN(auto comm, world.SplitCommunicator(world.rank() * 3 % (1 + round % 3), key));
    CAIRN_RETURN_IF_ERROR(CheckFloatSum(*comm, 3000, round));
    CAIRN_RETURN_IF_ERROR(CheckGathers(*comm, 2, 500, comm->size() - 1, round));
    CAIRN_RETURN_IF_ERROR(CheckFloatSum(*comm, 70'000, round));
    if (kept != nullptr) CAIRN_RETURN_IF_ERROR(CheckIntegerReduce<int64_t>(*kept, 50, ReduceOp::kMax, round));
    if (round % 4 == 0) kept = std::move(comm);
  }
  return absl::OkStatus();
}

// What was sent before the sender dropped its group still arrives.
absl::Status SendThenDrop(ControlChannel& world) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  const int next = (comm->rank() + 1) % comm->size(), previous = (comm->rank() + comm->size() - 1) % comm->size();
  constexpr int kMessages = 6;
  std::vector<float> values(4'000'000);
  if (comm->rank() % 2 == 0) {
    for (int i = 0; i < kMessages; ++i) {
      values.assign(values.size(), static_cast<float>(i));
      CAIRN_RETURN_IF_ERROR(comm->Send(Vector(values), next));
    }
    if (comm->size() % 2 == 0) comm.reset();
  }
  if (previous % 2 == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (int i = 0; i < kMessages && comm != nullptr; ++i) {
      CAIRN_RETURN_IF_ERROR(comm->Recv(Vector(values), previous));
      CAIRN_EXPECT(values.front() == static_cast<float>(i) && values.back() == static_cast<float>(i), values.back());
    }
  }
  return world.Barrier();
}

absl::Status StressStep(Communicator& comm, std::mt19937& shared, int step) {
  const int64_t sizes[] = {1, 7, 64, 500, 4000, 30000, 140000};
  const int64_t count = sizes[shared() % 7] + shared() % 5;
  const int root = static_cast<int>(shared() % comm.size());
  switch (shared() % 7) {
    case 0:
      return CheckIntegerReduce<float>(comm, count, ReduceOp::kSum, step);
    case 1:
      return CheckIntegerReduce<int64_t>(comm, count, ReduceOp::kMin, step);
    case 2:
      return CheckFloatSum(comm, count % 4000, step);
    case 3:
      return CheckGathers(comm, 1, count % 40000, root, step);
    case 4:
      return CheckBroadcast(comm, count, root, step);
    case 5:
      for (int i = 0; i < 5; ++i)
        CAIRN_RETURN_IF_ERROR(CheckIntegerReduce<float>(comm, 8 + i, ReduceOp::kMax, step + i));
      return absl::OkStatus();
    default: {
      std::vector<float> values(count, static_cast<float>(comm.rank()));
      CAIRN_RETURN_IF_ERROR(comm.Send(Vector(values), (comm.rank() + 1) % comm.size()));
      const int previous = (comm.rank() + comm.size() - 1) % comm.size();
      CAIRN_RETURN_IF_ERROR(comm.Recv(Vector(values), previous));
      for (float value : values) CAIRN_EXPECT(value == static_cast<float>(previous), value);
      return absl::OkStatus();
    }
  }
}

// Thousands of operations back to back, now and then with a rank that comes late: a window that is written again before
// all have read it shows here.
absl::Status StressFor(ControlChannel& world, int steps) {
  CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
  CAIRN_ASSIGN_OR_RETURN(auto pairs, world.SplitCommunicator(world.rank() / 2, world.rank()));
  std::mt19937 shared(1234), mine(static_cast<uint32_t>(world.rank()));
  for (int step = 0; step < steps; ++step) {
    if (mine() % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(mine() % 2000));
    const absl::Status status = step % 5 == 0 ? CheckIntegerReduce<float>(*pairs, step % 700, ReduceOp::kSum, step)
                                              : StressStep(*comm, shared, step);
    if (!status.ok()) {
      return absl::InternalError(absl::StrCat("step ", step, ": ", absl::string_view(status.message())));
    }
  }
  return absl::OkStatus();
}

absl::Status Stress(ControlChannel& world) { return StressFor(world, 300); }
absl::Status LongStress(ControlChannel& world) { return StressFor(world, 4000); }

// `status` of a rank that waited for `missing`, which never came.
absl::Status CheckLate(const absl::Status& status, const char* operation) {
  CAIRN_EXPECT(absl::IsDeadlineExceeded(status), status.ToString());
  CAIRN_EXPECT(absl::StrContains(absl::string_view(status.message()), operation) &&
                   absl::StrContains(absl::string_view(status.message()), "for rank"),
               status.ToString());
  return absl::OkStatus();
}

}  // namespace

std::vector<ConformanceCheck> CommunicatorChecks() {
  return {{"Reductions", Reductions},           {"ReductionsOfSpecialValues", ReductionsOfSpecialValues},
          {"NansInMinAndMax", NansInMinAndMax}, {"GathersAndBroadcasts", GathersAndBroadcasts},
          {"SixteenBits", SixteenBits},         {"BadTensors", BadTensors},
          {"SendsDoNotWait", SendsDoNotWait},   {"WrongSizes", WrongSizes},
          {"RepeatedSplits", RepeatedSplits},   {"Stress", Stress}};
}

std::vector<ConformanceCheck> HeavyChecks() {
  return {{"LargeMessages", LargeMessages}, {"SendThenDrop", SendThenDrop}, {"LongStress", LongStress}};
}

// Each operation on a group of its own: after a timeout the group is out of step.
absl::Status CheckTimeouts(ControlChannel& world, ControlChannel& outer) {
  const int missing = world.size() - 1;
  std::vector<std::unique_ptr<Communicator>> comms;
  for (int i = 0; i < 6; ++i) {
    CAIRN_ASSIGN_OR_RETURN(auto comm, WholeWorld(world));
    comms.push_back(std::move(comm));
  }
  CAIRN_RETURN_IF_ERROR(outer.Barrier());
  if (world.rank() != missing) {
    std::vector<float> small(8), large(500'000), gathered(8 * world.size());
    const Tensor out(gathered.data(), DType::kFloat32, {world.size(), 8});
    CAIRN_RETURN_IF_ERROR(CheckLate(comms[0]->AllReduce(Vector(small), ReduceOp::kSum), "AllReduce"));
    CAIRN_RETURN_IF_ERROR(CheckLate(comms[1]->AllReduce(Vector(large), ReduceOp::kSum), "AllReduce"));
    CAIRN_RETURN_IF_ERROR(CheckLate(comms[2]->AllGather(Vector(small), out), "AllGather"));
    CAIRN_RETURN_IF_ERROR(CheckLate(comms[3]->Broadcast(Vector(small), missing), "Broadcast"));
    CAIRN_RETURN_IF_ERROR(CheckLate(comms[4]->Recv(Vector(small), missing), "Recv"));
    if (world.rank() == 0) CAIRN_RETURN_IF_ERROR(CheckLate(comms[5]->Gather(Vector(small), out, 0), "Gather"));
    CAIRN_RETURN_IF_ERROR(CheckLate(world.Recv(missing, 0, 0.1).status(), "Recv"));
    CAIRN_RETURN_IF_ERROR(CheckLate(world.Barrier(), "Barrier"));
  }
  return outer.Barrier();
}

}  // namespace cairn
