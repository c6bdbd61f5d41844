namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// What a disk holds by the requests that were made of it. A sector is unknown after it was discarded, or written by
/// two at once, until it is written again.
/// </summary>
internal sealed class DiskModel
{
    private const int SectorSize = 512;

    private readonly byte[] _content;
    private readonly bool[] _isUnknown;
    private readonly List<(Access Access, ulong Sector, ulong End)> _inFlight = [];

    /// <summary>Begins with a disk of zeros.</summary>
    public DiskModel(ulong sectorCount)
    {
        SectorCount = sectorCount;
        _content = new byte[sectorCount * SectorSize];
        _isUnknown = new bool[sectorCount];
    }

    /// <summary>Size of the disk in sectors of 512 bytes.</summary>
    public ulong SectorCount { get; }

    /// <summary>A request begins.</summary>
    public void Begin(Access access, ulong sector, ulong count)
    {
        if (count == 0) return;
        foreach ((Access other, ulong first, ulong end) in _inFlight)
        {
            if (first >= sector + count || sector >= end || !(access.IsWrite || other.IsWrite)) continue;
            access.IsDisturbed = other.IsDisturbed = true;
        }

        _inFlight.Add((access, sector, sector + count));
    }

    /// <summary>A request was answered. Returns what is wrong with the data that it read; otherwise null.</summary>
    public string? End(Access access, ulong sector, ulong count, byte[] data)
    {
        if (count == 0) return null;
        _inFlight.RemoveAll(entry => entry.Access == access);
        if (!access.IsWrite) return access.IsDisturbed ? null : Compare(sector, data);
        bool isUnknown = access.IsDisturbed || access.IsDiscard;
        _isUnknown.AsSpan((int)sector, (int)count).Fill(isUnknown);
        if (!isUnknown) data.CopyTo(_content, (int)sector * SectorSize);
        return null;
    }

    private string? Compare(ulong sector, byte[] data)
    {
        for (int i = 0; i < data.Length / SectorSize; i++)
        {
            int at = (int)sector + i;
            if (_isUnknown[at]) continue;
            ReadOnlySpan<byte> expected = _content.AsSpan(at * SectorSize, SectorSize);
            if (!expected.SequenceEqual(data.AsSpan(i * SectorSize, SectorSize))) return $"sector {at} is wrong";
        }

        return null;
    }

    /// <summary>A request in flight.</summary>
    /// <param name="isWrite">True if it changes the disk.</param>
    /// <param name="isDiscard">True if it discards.</param>
    internal sealed class Access(bool isWrite, bool isDiscard)
    {
        public bool IsWrite => isWrite;

        public bool IsDiscard => isDiscard;

        /// <summary>True if another request changed a part of its range meanwhile.</summary>
        public bool IsDisturbed { get; set; }
    }
}
