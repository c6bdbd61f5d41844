using NUnit.Framework;

namespace Ublkback.Tests.Images;

/// <summary>
/// Which bytes each sector of a disk may hold after a loss of power: what was flushed last, or anything written since.
/// </summary>
internal sealed class GuestHistory(int diskSize, byte initial)
{
    private readonly List<(int Sector, int Count, byte? Value)> _writes = [];
    private readonly List<(int Position, int Writes)> _flushes = [];

    public void Wrote(int sector, int count, byte value) => _writes.Add((sector, count, value));

    public void Discarded(int sector, int count) => _writes.Add((sector, count, null));

    /// <summary>Changes up to now.</summary>
    public int Count => _writes.Count;

    /// <summary>
    /// A flush that came after a number of changes had ended when the file had seen a number of changes of its own.
    /// </summary>
    public void Flushed(int position, int writes) => _flushes.Add((position, writes));

    public void Check(byte[] disk, int position)
    {
        int durable = _flushes.Where(flush => flush.Position <= position).Select(flush => flush.Writes)
            .DefaultIfEmpty(0)
            .Max();
        HashSet<byte>?[] allowed = new HashSet<byte>?[diskSize / 512]; // null: anything that was ever there
        for (int i = 0; i < allowed.Length; i++) allowed[i] = [initial];
        for (int i = 0; i < _writes.Count; i++)
        {
            (int first, int count, byte? value) = _writes[i];
            for (int sector = first; sector < first + count; sector++)
            {
                if (value is null) allowed[sector] = null;
                else if (i < durable) allowed[sector] = [value.Value];
                else allowed[sector]?.Add(value.Value);
            }
        }

        for (int sector = 0; sector < allowed.Length; sector++)
        {
            ReadOnlySpan<byte> bytes = disk.AsSpan(sector * 512, 512);
            if (bytes.ContainsAnyExcept(bytes[0])) Assert.Fail($"sector {sector} holds a mixture");
            if (allowed[sector] is HashSet<byte> values && !values.Contains(bytes[0]))
                Assert.Fail($"sector {sector} holds {bytes[0]} and may hold {string.Join(", ", values)}, with "
                    + $"{durable} of {_writes.Count} writes flushed at {position}");
        }
    }
}
