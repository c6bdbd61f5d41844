namespace Ublkback.XenStore;

/// <summary>
/// Reading and writing nodes, in or outside a transaction. Paths are absolute, or relative to the home of the
/// connection's domain. All members throw <see cref="XenStoreException"/>; any thread.
/// </summary>
public interface IXenStore
{
    /// <summary>The value of a node; null when there is no such node.</summary>
    Task<string?> ReadAsync(string path);

    /// <summary>Sets the value of a node, which is made if missing.</summary>
    Task WriteAsync(string path, string value);

    /// <summary>Makes a node if missing.</summary>
    Task MakeDirectoryAsync(string path);

    /// <summary>Removes a node and all below it; a missing node is no error.</summary>
    Task RemoveAsync(string path);

    /// <summary>Names of the children of a node; null when there is no such node.</summary>
    Task<string[]?> ListAsync(string path);

    /// <summary>Permissions of a node: letter and domid each, the owner first, as in <c>n0 r5</c>.</summary>
    Task<string[]> GetPermissionsAsync(string path);

    /// <summary>Sets the permissions of a node.</summary>
    Task SetPermissionsAsync(string path, params string[] permissions);
}
