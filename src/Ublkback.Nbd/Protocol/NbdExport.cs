namespace Ublkback.Nbd.Protocol;

/// <summary>What was negotiated of an export.</summary>
/// <param name="Size">Bytes.</param>
/// <param name="Flags">What it can do.</param>
/// <param name="MinBlock">Unit of offsets and lengths, in bytes.</param>
/// <param name="MaxBlock">Most bytes of a request with data.</param>
/// <param name="IsStructured">Whether reads are answered by chunks.</param>
internal sealed record NbdExport(long Size, NbdExportFlags Flags, int MinBlock, int MaxBlock, bool IsStructured)
{
    /// <summary>Whether it can do something.</summary>
    public bool Can(NbdExportFlags flag) => (Flags & flag) == flag;
}
