// The data plane between ranks of one host against plain MPI. Start with mpirun, without --bind-to for more ranks than
// cores:
//
//   mpirun -np 2 build/release/bench/allreduce_bench
//
// First table: AllReduce of float32 sums, ours (through the shared window, in rank order) and MPI_Allreduce, median
// time of the slowest rank. GB/s is the bus bandwidth of nccl-tests: 2 (n - 1) / n * bytes / time.
//
// Second table: rank 0 sends to rank 1 and then computes for 20 ms without a call; how long until rank 1 has the
// message, which was waiting for it. That is what one pipeline stage does to the next. Where the kernel lets MPI read
// another process's memory the two are alike; run it with --mca btl_vader_single_copy_mechanism none to see the rest.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "parallel/comm/mpi_channel.h"

namespace cairn {
namespace {

using Clock = std::chrono::steady_clock;

double MicrosSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

double OfSlowestRank(double value) {
  double slowest = 0;
  MPI_Allreduce(&value, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

// Microseconds per call: the median over batches of back-to-back calls, as a forward pass makes them.
double TimePerCall(const std::function<void()>& call, int calls_per_batch, int batches) {
  std::vector<double> times;
  for (int batch = -2; batch < batches; ++batch) {
    MPI_Barrier(MPI_COMM_WORLD);
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < calls_per_batch; ++i) call();
    const double time = OfSlowestRank(MicrosSince(start) / calls_per_batch);
    if (batch >= 0) times.push_back(time);  // the first ones warm up
  }
  return Median(times);
}

bool SumIsRight(Communicator& comm, const Tensor& data) {
  float* values = data.data<float>();
  for (int64_t i = 0; i < data.num_elements(); ++i) values[i] = static_cast<float>((comm.rank() + i) % 64);
  if (!comm.AllReduce(data, ReduceOp::kSum).ok()) return false;
  for (int64_t i = 0; i < data.num_elements(); ++i) {
    float expected = 0;
    for (int rank = 0; rank < comm.size(); ++rank) expected += static_cast<float>((rank + i) % 64);
    if (values[i] != expected) return false;
  }
  return true;
}

bool AllReduceTable(Communicator& comm) {
  if (comm.rank() == 0) {
    std::printf("AllReduce, %d ranks\n%10s %12s %8s %12s %8s %8s\n", comm.size(), "bytes", "cairn us", "GB/s", "MPI us",
                "GB/s", "speed-up");
  }
  for (int64_t bytes = 4 << 10; bytes <= 4 << 20; bytes *= 2) {
    std::vector<float> values(bytes / sizeof(float));
    const Tensor data(values.data(), DType::kFloat32, {static_cast<int64_t>(values.size())});
    if (!SumIsRight(comm, data)) return false;
    std::fill(values.begin(), values.end(), 0.0f);  // sums of sums stay finite
    const int calls = static_cast<int>(std::clamp<int64_t>((4 << 20) / bytes, 4, 200));
    const double ours = TimePerCall([&] { (void)comm.AllReduce(data, ReduceOp::kSum); }, calls, 31);
    const double mpi = TimePerCall(
        [&] {
          MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_FLOAT, MPI_SUM,
                        MPI_COMM_WORLD);
        },
        calls, 31);
    const double moved = 2.0 * (comm.size() - 1) / comm.size() * static_cast<double>(bytes) * 1e-3;
    if (comm.rank() == 0) {
      std::printf("%10lld %12.1f %8.2f %12.1f %8.2f %7.1fx\n", static_cast<long long>(bytes), ours, moved / ours, mpi,
                  moved / mpi, mpi / ours);
    }
  }
  return true;
}

void ComputeFor(std::chrono::milliseconds duration) {
  const Clock::time_point end = Clock::now() + duration;
  volatile double x = 1;
  while (Clock::now() < end) x = std::sqrt(x + 1);
}

// Until rank 1 has the message, counted from rank 0's call: the ranks of a host share a clock.
double TimeToArrive(int rank, const std::function<void()>& send, const std::function<void()>& recv,
                    const std::function<void()>& complete) {
  constexpr auto kCompute = std::chrono::milliseconds(20);
  std::vector<double> times;
  for (int i = 0; i < 15; ++i) {
    MPI_Barrier(MPI_COMM_WORLD);
    double sent = 0, received = 0;
    const auto now = [] { return std::chrono::duration<double, std::micro>(Clock::now().time_since_epoch()).count(); };
    if (rank == 0) {
      ComputeFor(std::chrono::milliseconds(2));  // until the receiver waits
      sent = now();
      send();
      ComputeFor(kCompute);
      complete();
    } else if (rank == 1) {
      recv();
      received = now();
    }
    MPI_Bcast(&sent, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    MPI_Bcast(&received, 1, MPI_DOUBLE, 1, MPI_COMM_WORLD);
    if (i >= 3) times.push_back(received - sent);
  }
  return Median(times);
}

void MessageTable(Communicator& comm) {
  if (comm.rank() == 0)
    std::printf("\nMessage of a rank that then computes for 20 ms\n%10s %12s %12s\n", "bytes", "cairn us", "MPI us");
  for (int64_t bytes = 4 << 10; bytes <= 16 << 20; bytes *= 8) {
    std::vector<float> values(bytes / sizeof(float), 1.0f);
    const Tensor data(values.data(), DType::kFloat32, {static_cast<int64_t>(values.size())});
    const double ours = TimeToArrive(
        comm.rank(), [&] { (void)comm.Send(data, 1); }, [&] { (void)comm.Recv(data, 0); }, [] {});
    MPI_Request request = MPI_REQUEST_NULL;
    const double mpi = TimeToArrive(
        comm.rank(),
        [&] { MPI_Isend(values.data(), static_cast<int>(bytes), MPI_BYTE, 1, 0, MPI_COMM_WORLD, &request); },
        [&] { MPI_Recv(values.data(), static_cast<int>(bytes), MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE); },
        [&] { MPI_Wait(&request, MPI_STATUS_IGNORE); });
    if (comm.rank() == 0) std::printf("%10lld %12.1f %12.1f\n", static_cast<long long>(bytes), ours, mpi);
  }
}

bool Run() {
  const auto world = MakeMpiWorld(/*timeout_seconds=*/60);
  if (!world.ok() || (*world)->size() < 2) {
    std::fprintf(stderr, "%s\n", world.ok() ? "start it with mpirun -np 2 or more" : world.status().ToString().c_str());
    return false;
  }
  const auto comm = (*world)->SplitCommunicator(0, (*world)->rank());
  if (!comm.ok() || !AllReduceTable(**comm)) {
    std::fprintf(stderr, "AllReduce failed or gave a wrong sum\n");
    return false;
  }
  MessageTable(**comm);
  return true;
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  if (!cairn::Run()) MPI_Abort(MPI_COMM_WORLD, 1);
  MPI_Finalize();
  return 0;
}
