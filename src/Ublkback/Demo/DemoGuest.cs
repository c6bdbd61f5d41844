using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.XenStore;

namespace Ublkback.Demo;

/// <summary>
/// The guest of the demonstration, in a process of its own: writes a pattern over its whole disk, reads it back, mixes
/// random reads and writes, and checks every byte that it reads. Tells its progress in lines on standard output.
/// </summary>
internal sealed class DemoGuest(Blkfront disk, TimeSpan mixTime)
{
    private const int BlockSize = 4096;
    private const int SectorsPerBlock = BlockSize / 512;
    private const int BlocksPerTransfer = 11; // what one request of the classic protocol carries
    private const int Depth = 32;

    private readonly uint[] _generations = new uint[disk.SectorCount / SectorsPerBlock];
    private long _errors;

    public static async Task<int> RunAsync(HostLayout layout, int domid, int deviceId, TimeSpan mixTime)
    {
        TimeSpan timeout = TimeSpan.FromSeconds(10);
        using EmulatedGuest guest = new(layout, domid);
        await using XenStoreClient store = XenStoreClient.Open(new XenStoreTransport(layout.DomainSocket(domid)));
        await using Blkfront disk = await Blkfront.ConnectAsync(
            guest, store, deviceId, new BlkfrontOptions(BlkifAbi.X86_64, 2), timeout).ConfigureAwait(false);
        DemoGuest demo = new(disk, mixTime);
        await demo.RunPhasesAsync().ConfigureAwait(false);
        await disk.CloseAsync(timeout).ConfigureAwait(false);
        return demo._errors == 0 ? 0 : 1;
    }

    private async Task RunPhasesAsync()
    {
        await SweepAsync("write", WriteRunAsync).ConfigureAwait(false);
        await FlushAsync().ConfigureAwait(false);
        await SweepAsync("read back", CheckRunAsync).ConfigureAwait(false);
        await MixAsync().ConfigureAwait(false);
        await FlushAsync().ConfigureAwait(false);
        await ChecksumAsync().ConfigureAwait(false);
    }

    // Covers the disk from end to end, as many transfers at a time as the depth.
    private async Task SweepAsync(string phase, Func<int, int, byte[], Task> transfer)
    {
        Stopwatch time = Stopwatch.StartNew();
        int next = 0;
        int requests = 0;
        await Task.WhenAll(Enumerable.Range(0, Depth).Select(async _ =>
        {
            byte[] buffer = new byte[BlocksPerTransfer * BlockSize];
            while (true)
            {
                int first = Interlocked.Add(ref next, BlocksPerTransfer) - BlocksPerTransfer;
                if (first >= _generations.Length) return;
                await transfer(first, Math.Min(BlocksPerTransfer, _generations.Length - first), buffer)
                    .ConfigureAwait(false);
                if (Interlocked.Increment(ref requests) % 64 == 0) Progress(phase, (double)first / _generations.Length);
            }
        })).ConfigureAwait(false);
        Result(phase, requests, (long)_generations.Length * BlockSize, time.Elapsed);
    }

    // Each of the tasks has its own part of the disk, so nobody reads what another is writing.
    private async Task MixAsync()
    {
        const string Phase = "random mix";
        Stopwatch time = Stopwatch.StartNew();
        int requests = 0;
        int part = _generations.Length / Depth;
        await Task.WhenAll(Enumerable.Range(0, Depth).Select(async worker =>
        {
            Random random = new(worker); // the same sequence each time
            byte[] buffer = new byte[BlockSize];
            while (time.Elapsed < mixTime)
            {
                int block = (worker * part) + random.Next(part);
                bool isWrite = random.Next(10) < 3;
                await (isWrite ? WriteRunAsync(block, 1, buffer) : CheckRunAsync(block, 1, buffer))
                    .ConfigureAwait(false);
                if (Interlocked.Increment(ref requests) % 1024 == 0) Progress(Phase, time.Elapsed / mixTime);
            }
        })).ConfigureAwait(false);
        Result(Phase, requests, (long)requests * BlockSize, time.Elapsed);
    }

    private async Task WriteRunAsync(int first, int count, byte[] buffer)
    {
        for (int i = 0; i < count; i++)
            Fill(buffer.AsSpan(i * BlockSize, BlockSize), first + i, ++_generations[first + i]);
        Check(await disk.WriteAsync(
            (ulong)first * SectorsPerBlock, buffer.AsMemory(0, count * BlockSize)).ConfigureAwait(false));
    }

    private async Task CheckRunAsync(int first, int count, byte[] buffer)
    {
        Check(
            await disk.ReadAsync((ulong)first * SectorsPerBlock, buffer.AsMemory(0, count * BlockSize))
                .ConfigureAwait(false));
        byte[] expected = new byte[BlockSize];
        for (int i = 0; i < count; i++)
        {
            Fill(expected, first + i, _generations[first + i]);
            if (!buffer.AsSpan(i * BlockSize, BlockSize).SequenceEqual(expected)) Interlocked.Increment(ref _errors);
        }
    }

    private async Task FlushAsync() => Check(await disk.FlushAsync().ConfigureAwait(false));

    private async Task ChecksumAsync()
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[256 * BlockSize];
        for (int block = 0; block < _generations.Length; block += 256)
        {
            Memory<byte> part = buffer.AsMemory(0, Math.Min(256, _generations.Length - block) * BlockSize);
            Check(await disk.ReadAsync((ulong)block * SectorsPerBlock, part).ConfigureAwait(false));
            hash.AppendData(part.Span);
        }

        Console.WriteLine($"checksum\t{Convert.ToHexString(hash.GetHashAndReset())}");
    }

    private void Check(BlkifStatus status)
    {
        if (status != BlkifStatus.Okay) Interlocked.Increment(ref _errors);
    }

    // Content that tells where and when it was written.
    private static void Fill(Span<byte> block, int number, uint generation)
    {
        ulong value = ((ulong)(uint)number << 32) | generation;
        for (int i = 0; i < block.Length; i += sizeof(ulong))
        {
            value ^= value << 13; // xorshift64
            value ^= value >> 7;
            value ^= value << 17;
            BinaryPrimitives.WriteUInt64LittleEndian(block[i..], value);
        }
    }

    private static void Progress(string phase, double fraction) =>
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"progress\t{phase}\t{fraction:F3}"));

    private void Result(string phase, int requests, long bytes, TimeSpan time) => Console.WriteLine(string.Create(
        CultureInfo.InvariantCulture,
        $"result\t{phase}\t{requests}\t{bytes}\t{time.TotalSeconds:F3}\t{Interlocked.Read(ref _errors)}"));
}
