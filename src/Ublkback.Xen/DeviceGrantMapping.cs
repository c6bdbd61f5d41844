using Ublkback.Linux.Kernel;

namespace Ublkback.Xen;

/// <summary>Pages mapped through the grant device.</summary>
internal sealed unsafe class DeviceGrantMapping : IGrantMapping
{
    private const int MaxAttempts = 1000;
    private const int RetryDelayMs = 1;

    private readonly FileDescriptor _device;
    private readonly ulong _index;
    private readonly int _count;
    private MemoryMapping? _mapping;

    public DeviceGrantMapping(FileDescriptor device, ushort domid, ReadOnlySpan<uint> references)
    {
        _device = device;
        _count = references.Length;
        byte* argument = stackalloc byte[sizeof(GrantIoctl.Map) + (sizeof(GrantIoctl.Reference) * _count)];
        GrantIoctl.Map* map = (GrantIoctl.Map*)argument;
        *map = new GrantIoctl.Map { Count = (uint)_count };
        GrantIoctl.Reference* list = (GrantIoctl.Reference*)(map + 1);
        for (int i = 0; i < _count; i++)
            list[i] = new GrantIoctl.Reference { Domid = domid, Number = references[i] };

        _ = Ioctl.Check(device, GrantIoctl.MapNumber, argument, "IOCTL_GNTDEV_MAP_GRANT_REF");
        _index = map->Index;
        try
        {
            _mapping = MapPages();
        }
        catch
        {
            Forget();
            throw;
        }
    }

    public nint Address => (nint)_mapping!.Address;

    public void Dispose()
    {
        if (_mapping is null) return;
        _mapping.Dispose(); // the pages first, then the driver's record of them
        _mapping = null;
        Forget();
    }

    // Here the hypervisor maps the pages. EAGAIN: a page of the guest is paged out and on its way.
    private MemoryMapping MapPages()
    {
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return MemoryMapping.Shared(_device, (long)_index, (long)_count * MemoryMapping.PageSize);
            }
            catch (LinuxException failure) when (failure.Errno == LinuxError.TryAgain && attempt < MaxAttempts)
            {
                Thread.Sleep(RetryDelayMs);
            }
        }
    }

    private void Forget()
    {
        GrantIoctl.Unmap unmap = new() { Index = _index, Count = (uint)_count };
        _ = Ioctl.Check(_device, GrantIoctl.UnmapNumber, &unmap, "IOCTL_GNTDEV_UNMAP_GRANT_REF");
    }
}
