using System.Runtime.InteropServices;

namespace Ublkback.Xen;

/// <summary>One piece of a batch of grant copies (struct gntdev_grant_copy_segment, xen/gntdev.h).</summary>
[StructLayout(LayoutKind.Explicit, Size = 24)]
public struct GrantCopy
{
    /// <summary>Source is a grant (GNTCOPY_source_gref).</summary>
    public const ushort SourceIsGrant = 1;

    /// <summary>Destination is a grant (GNTCOPY_dest_gref).</summary>
    public const ushort DestinationIsGrant = 2;

    /// <summary>Done (GNTST_okay).</summary>
    public const short Okay = 0;

    /// <summary>The grant does not permit it (GNTST_permission_denied).</summary>
    public const short PermissionDenied = -8;

    /// <summary>Undefined error; a copy into a read-only grant ends so (GNTST_general_error).</summary>
    public const short GeneralError = -1;

    /// <summary>No such grant (GNTST_bad_gntref).</summary>
    public const short BadReference = -3;

    /// <summary>Source address, unless the source is a grant.</summary>
    [FieldOffset(0)]
    public nint SourceAddress;

    /// <summary>Source grant reference.</summary>
    [FieldOffset(0)]
    public uint SourceReference;

    /// <summary>Offset in the source page in bytes.</summary>
    [FieldOffset(4)]
    public ushort SourceOffset;

    /// <summary>Domain of the source page.</summary>
    [FieldOffset(6)]
    public ushort SourceDomid;

    /// <summary>Destination address, unless the destination is a grant.</summary>
    [FieldOffset(8)]
    public nint DestinationAddress;

    /// <summary>Destination grant reference.</summary>
    [FieldOffset(8)]
    public uint DestinationReference;

    /// <summary>Offset in the destination page in bytes.</summary>
    [FieldOffset(12)]
    public ushort DestinationOffset;

    /// <summary>Domain of the destination page.</summary>
    [FieldOffset(14)]
    public ushort DestinationDomid;

    /// <summary>Bytes; offset and length stay within a page.</summary>
    [FieldOffset(16)]
    public ushort Length;

    /// <summary>Which ends are grants.</summary>
    [FieldOffset(18)]
    public ushort Flags;

    /// <summary>How it went: 0, or negative.</summary>
    [FieldOffset(20)]
    public short Status;

    /// <summary>A copy out of a granted page.</summary>
    public static GrantCopy FromGrant(ushort domid, uint reference, int offset, nint destination, int length) => new()
    {
        SourceReference = reference,
        SourceOffset = (ushort)offset,
        SourceDomid = domid,
        DestinationAddress = destination,
        Length = (ushort)length,
        Flags = SourceIsGrant,
    };

    /// <summary>A copy into a granted page.</summary>
    public static GrantCopy ToGrant(nint source, ushort domid, uint reference, int offset, int length) => new()
    {
        SourceAddress = source,
        DestinationReference = reference,
        DestinationOffset = (ushort)offset,
        DestinationDomid = domid,
        Length = (ushort)length,
        Flags = DestinationIsGrant,
    };
}
