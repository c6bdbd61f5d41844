namespace Ublkback;

/// <summary>
/// Marks a type that every request passes: nothing in its file blocks, takes a lock or allocates for a request. A test
/// searches these files for such calls. A line that no request passes says so in a comment,
/// <c>// off the path: why</c>.
/// </summary>
[AttributeUsage(AttributeTargets.Class | AttributeTargets.Struct | AttributeTargets.Interface, Inherited = false)]
internal sealed class DataPathAttribute : Attribute;
