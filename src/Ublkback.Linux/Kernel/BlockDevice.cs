using System.Globalization;

namespace Ublkback.Linux.Kernel;

/// <summary>Questions to a block device (linux/fs.h).</summary>
public static unsafe class BlockDevice
{
    private const uint GetSize = 0x80081272; // BLKGETSIZE64
    private const uint GetSectorSize = 0x1268; // BLKSSZGET
    private const uint GetPhysicalSectorSize = 0x127B; // BLKPBSZGET
    private const uint GetReadOnly = 0x125E; // BLKROGET
    private const uint DiscardRange = 0x1277; // BLKDISCARD

    /// <summary>Size in bytes.</summary>
    public static long SizeOf(FileDescriptor device)
    {
        long size;
        _ = Ioctl.Check(device, GetSize, &size, "BLKGETSIZE64");
        return size;
    }

    /// <summary>Smallest unit of I/O in bytes.</summary>
    public static int SectorSizeOf(FileDescriptor device) => Ask(device, GetSectorSize, "BLKSSZGET");

    /// <summary>Unit in bytes that the device writes without reading first.</summary>
    public static int PhysicalSectorSizeOf(FileDescriptor device) => Ask(device, GetPhysicalSectorSize, "BLKPBSZGET");

    /// <summary>Whether the device refuses writes.</summary>
    public static bool IsReadOnly(FileDescriptor device) => Ask(device, GetReadOnly, "BLKROGET") != 0;

    /// <summary>Unit in bytes that the device can free; 0 when it cannot free anything.</summary>
    /// <param name="number">The device's number, major and minor in one.</param>
    public static int DiscardGranularityOf(ulong number)
    {
        string device = string.Create(CultureInfo.InvariantCulture, $"/sys/dev/block/{number >> 32}:{(uint)number}");
        // A partition has no queue of its own.
        string queue = Directory.Exists($"{device}/queue") ? $"{device}/queue" : $"{device}/../queue";
        return Read("discard_max_bytes") == 0 ? 0 : (int)Math.Min(Read("discard_granularity"), int.MaxValue);

        long Read(string name) =>
            File.Exists($"{queue}/{name}")
                ? long.Parse(File.ReadAllText($"{queue}/{name}"), CultureInfo.InvariantCulture)
                : 0;
    }

    /// <summary>Frees a range in bytes; 0 or −errno. Blocks.</summary>
    public static int Discard(FileDescriptor device, long offset, long length)
    {
        long* range = stackalloc long[] { offset, length };
        return Ioctl.Call(device, DiscardRange, range);
    }

    private static int Ask(FileDescriptor device, uint request, string name)
    {
        int answer = 0;
        _ = Ioctl.Check(device, request, &answer, name);
        return answer;
    }
}
