using System.Runtime.InteropServices;

namespace Ublkback.Xen;

/// <summary>Numbers and structures of the grant device (xen/gntdev.h).</summary>
public static class GrantIoctl
{
    /// <summary>IOCTL_GNTDEV_MAP_GRANT_REF.</summary>
    public const uint MapNumber = 0x184700;

    /// <summary>IOCTL_GNTDEV_UNMAP_GRANT_REF.</summary>
    public const uint UnmapNumber = 0x104701;

    /// <summary>IOCTL_GNTDEV_GRANT_COPY.</summary>
    public const uint CopyNumber = 0x104708;

    /// <summary>Head of struct ioctl_gntdev_map_grant_ref; the references follow it.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 16)]
    public struct Map
    {
        /// <summary>Number of references.</summary>
        [FieldOffset(0)]
        public uint Count;

        /// <summary>Out: the offset to mmap at.</summary>
        [FieldOffset(8)]
        public ulong Index;
    }

    /// <summary>struct ioctl_gntdev_grant_ref.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Reference
    {
        /// <summary>The granting domain.</summary>
        public uint Domid;

        /// <summary>The grant reference.</summary>
        public uint Number;
    }

    /// <summary>struct ioctl_gntdev_unmap_grant_ref.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 16)]
    public struct Unmap
    {
        /// <summary>The offset that mapping gave.</summary>
        [FieldOffset(0)]
        public ulong Index;

        /// <summary>Number of pages.</summary>
        [FieldOffset(8)]
        public uint Count;
    }

    /// <summary>struct ioctl_gntdev_grant_copy.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 16)]
    public struct Copy
    {
        /// <summary>Number of segments.</summary>
        [FieldOffset(0)]
        public uint Count;

        /// <summary>Address of the segments.</summary>
        [FieldOffset(8)]
        public nint Segments;
    }
}
